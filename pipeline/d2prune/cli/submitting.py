"""The command `submit`: a run as a job on a Ray cluster."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d2prune.cli.configuring import add_config, load_config
from d2prune.console import print_line
from d2prune.errors import UserError

if TYPE_CHECKING:
    from d2prune.config.model import RunConfig

_CONFIG = "run.yaml"


def add_commands(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "submit",
        help="run on a Ray cluster",
        description="Run as a job on a Ray cluster: upload this installation and the configuration, print "
        "the log, and end with the exit code of the run. Ctrl-C stops the job; the same command resumes.",
    )
    add_config(parser, "configuration of the run")
    parser.add_argument(
        "--address",
        required=True,
        metavar="ADDRESS",
        help="job server of the cluster, such as http://head:8265",
    )
    parser.add_argument("--stop-after", metavar="STAGE", help="last stage to run; default: all stages")
    parser.add_argument(
        "--no-wait", action="store_true", help="end when the job is submitted, and print its name"
    )
    parser.set_defaults(command=_submit)


def _submit(arguments: argparse.Namespace) -> int:
    import tempfile

    import yaml

    import d2prune
    from d2prune.execution.ray_jobs import RayJob
    from d2prune.runs.stages import needs_budget

    config = load_config(arguments, needs_budget(arguments.stop_after))
    _check_locations(config)
    words = ["python", "-m", "d2prune.job", "run", "--config", _CONFIG]
    if arguments.stop_after:
        words += ["--stop-after", arguments.stop_after]
    with tempfile.TemporaryDirectory(prefix="d2prune-submit-") as folder:
        values = config.model_dump(mode="json", exclude_unset=True)
        Path(folder, _CONFIG).write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        package = Path(d2prune.__file__).parent
        job = RayJob.submit(arguments.address, shlex.join(words), Path(folder), package)
    print_line(f"submitted {job.name}", flush=True)
    if arguments.no_wait:
        address = shlex.quote(arguments.address)
        print_line(f"follow with  ray job logs --address {address} --follow {job.name}")
        return 0
    return job.follow()


def _check_locations(config: "RunConfig") -> None:
    """Refuse relative paths: the job runs in another folder on another machine.

    Raises:
        UserError: names the first key.
    """
    given = [config.input] if isinstance(config.input, str) else config.input
    for key, place in [("input", item) for item in given] + list(config.written.items()):
        if "://" not in place and not place.startswith("/"):
            raise UserError(
                f"{key} = {place}: found a relative path; expected a URL, or an absolute path that every "
                "machine of the cluster has"
            )
