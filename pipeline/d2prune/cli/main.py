"""The `d2prune` command: a thin skin over `d2prune.run`.

Exit codes: 0 done; 1 a run failed and can be resumed by the same command; 2 a mistake of the
user's, told in one line; 3 another run is at work; 130 interrupted.
"""

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from d2prune.errors import D2PruneError, UserError
from d2prune.version import __version__

if TYPE_CHECKING:
    from d2prune.config.model import RunConfig
    from d2prune.runs.driver import RunResult

log = logging.getLogger("d2prune")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        force=True,
    )
    logging.getLogger("d2prune").setLevel(logging.INFO)
    for noisy in ("botocore", "aiobotocore", "s3fs", "fsspec", "root"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        with _stoppable():
            code = int(arguments.command(arguments))
            sys.stdout.flush()
            return code
    except D2PruneError as error:
        print(f"d2prune: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # `d2prune explain ... | head`: whoever reads has enough. Nothing is left for the
        # interpreter to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        print("d2prune: interrupted; the same command resumes", file=sys.stderr)
        return 130


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM, which `ray job stop`, Kubernetes and cloud schedulers send, ends a run as Ctrl-C does: in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="d2prune",
        description="Choose which image-text pairs to train CLIP on.",
        epilog="New here? `d2prune demo` shows it all on a bundled pool. Exit codes: 0 done; 1 failed, the same "
        "command resumes; 2 a mistake of yours, told in one line; 3 another run is at work; 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"d2prune {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run", help="filter a pool", description="Filter a pool; the same command resumes."
    )
    run.add_argument(
        "--config",
        required=True,
        metavar="FILE",
        help="run.yaml; README.md has one, docs/configuration.md all keys",
    )
    run.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. select.fraction=0.3"
    )
    run.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="side by side, the same as --set ray.workers=N; default: all cores",
    )
    run.add_argument("--no-ray", action="store_true", help="one worker, in this process")
    run.add_argument(
        "--stop-after",
        metavar="STAGE",
        choices=STAGES,
        default="report",
        help=f"the last stage to do, one of {', '.join(STAGES)} (%(default)s)",
    )
    run.set_defaults(command=_run)

    verify = commands.add_parser(
        "verify", help="re-read an output folder and name every fault; exit 1 if there is one"
    )
    verify.add_argument("output", metavar="OUTPUT", help="folder that `d2prune run` wrote")
    verify.add_argument(
        "--full", action="store_true", help="every tar and every sample, not a sample of them"
    )
    verify.set_defaults(command=_verify)

    reshard = commands.add_parser(
        "reshard",
        help="copy the samples a subset file names into new tars",
        description="Copy the samples a subset file (.npy, ours or DataComp's) names into new tars; the same command "
        "resumes where --work-dir is given.",
    )
    reshard.add_argument("--subset", required=True, metavar="FILE", help="subset file, .npy")
    reshard.add_argument(
        "--input", required=True, nargs="+", metavar="URL", help="tars: folders, globs, names with braces"
    )
    reshard.add_argument("--output", required=True, metavar="URL", help="an empty folder")
    reshard.add_argument(
        "--samples-per-shard",
        type=int,
        default=10_000,
        metavar="N",
        help="samples in each tar but the last (%(default)s)",
    )
    reshard.add_argument(
        "--shuffle", type=int, metavar="SEED", help="deal samples to tars at random, by this seed"
    )
    reshard.add_argument(
        "--work-dir", metavar="URL", help="keeps indexes and receipts; default: a temporary folder"
    )
    reshard.add_argument(
        "--workers", type=int, default=1, metavar="N", help="more than 1 start a local Ray (%(default)s)"
    )
    reshard.set_defaults(command=_reshard)

    plan = commands.add_parser(
        "plan",
        help="say what a run will take: hours, bytes, memory, time, cost",
        description="Say what a run will take, from its configuration and the listing of its input.",
    )
    plan.add_argument("--config", required=True, metavar="FILE", help="run.yaml")
    plan.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, as of run")
    plan.add_argument(
        "--samples",
        type=float,
        metavar="N",
        help="samples in the pool, e.g. 12.8e9; default: from the listing",
    )
    plan.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs of the fleet (%(default)s)")
    plan.add_argument("--cpus", type=int, default=16, metavar="N", help="cores of the fleet (%(default)s)")
    plan.add_argument("--gpu-price", type=float, default=0.0, metavar="X", help="price of a GPU per hour")
    plan.add_argument("--cpu-price", type=float, default=0.0, metavar="X", help="price of a core per hour")
    plan.add_argument("--embed-rate", type=float, metavar="X", help="samples/s of one embedding worker")
    plan.add_argument(
        "--calibrate",
        type=int,
        nargs="?",
        const=2,
        metavar="SHARDS",
        help="filter so many shards first (%(const)s)",
    )
    plan.set_defaults(command=_plan)

    runs = commands.add_parser(
        "runs",
        help="list the finished runs of a work_dir, or delete old ones",
        description="List the finished runs of a work_dir. --prune names what could be deleted: outputs in {run_id} "
        "folders and artifacts that no kept run needs; with --yes it is deleted.",
    )
    runs.add_argument(
        "place", metavar="WORK_DIR|OUTPUT", help="a work_dir, or the folder that holds latest.json"
    )
    runs.add_argument(
        "--prune", action="store_true", help="what only older runs need; the latest is always kept"
    )
    runs.add_argument("--keep", type=int, default=3, metavar="N", help="newest runs to keep (%(default)s)")
    runs.add_argument("--yes", action="store_true", help="with --prune: delete")
    runs.set_defaults(command=_runs)

    explain = commands.add_parser(
        "explain",
        help="say why samples were kept or dropped",
        description="Say of samples what became of them and why: scores, neighbours, who suppressed them, whom they "
        "suppressed.",
    )
    explain.add_argument("work_dir", metavar="WORK_DIR", help="work_dir of a run that reached `select`")
    explain.add_argument(
        "names", nargs="+", metavar="UID", help="a uid or the beginning of one; a sample's key; shard/key"
    )
    explain.add_argument(
        "--run", metavar="FINGERPRINT", help="which selection, by its beginning; default: the newest"
    )
    explain.set_defaults(command=_explain)

    explore = commands.add_parser(
        "explore",
        help="look into a run in the browser",
        description="Search a run, see who suppressed whom, and what another fraction would change, in the browser of "
        "this machine.",
    )
    explore.add_argument("work_dir", metavar="WORK_DIR", help="work_dir of a run that reached `select`")
    explore.add_argument(
        "--run", metavar="FINGERPRINT", help="which selection, by its beginning; default: the newest"
    )
    explore.add_argument(
        "--input",
        nargs="+",
        metavar="URL",
        help="where the tars lie now; default: where they lay when the run read them",
    )
    explore.add_argument("--port", type=int, default=0, metavar="N", help="default: a free one")
    explore.set_defaults(command=_explore)

    sweep = commands.add_parser(
        "sweep",
        help="compare fractions, neighbourhoods and gammas on what a run has stored",
        description="Compare every combination of the values given, on the stored embeddings and scores, in a table "
        "and a page. A graph with another k is built from the stored embeddings and kept; nothing is embedded again.",
    )
    sweep.add_argument("--config", required=True, metavar="FILE", help="of a run whose pool is embedded")
    sweep.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, as for `run`"
    )
    for option, meaning, example in (
        ("--fractions", "select.fraction", "0.1,0.3"),
        ("--n-neighbors", "graph.n_neighbors", "1,5,10"),
        ("--gamma-forward", "select.gamma_forward", "0.5,1"),
        ("--gamma-reverse", "select.gamma_reverse", "0.1,1"),
    ):
        sweep.add_argument(
            option, metavar="LIST", help=f"values of {meaning}, such as {example}; default: the run's"
        )
    sweep.add_argument(
        "--flagged", metavar="FILE", help="uids, one a line: tell what share of them is dropped"
    )
    sweep.add_argument("--no-ray", action="store_true", help="build graphs in this process")
    sweep.set_defaults(command=_sweep)

    models = commands.add_parser(
        "models", help="list the models that can be named in embed.model and embed.pretrained"
    )
    models.set_defaults(command=_models)

    demo = commands.add_parser("demo", help="filter the bundled pool, from S3 to S3, on a local Ray")
    demo.add_argument(
        "--folder", default=".demo", help="where the bucket and the report go (default: %(default)s)"
    )
    demo.set_defaults(command=_demo)
    return parser


# As d2prune.runs.plan.STAGES, which a test compares: importing it here would cost a second at every `--help`.
STAGES = ("embed", "graph", "rank", "select", "write", "report")


def _run(arguments: argparse.Namespace) -> int:
    from d2prune.config.model import RunConfig
    from d2prune.runs.driver import run

    overrides = list(arguments.set)
    if arguments.workers is not None:
        overrides.append(f"ray.workers={arguments.workers}")
    config = RunConfig.load(arguments.config, overrides)
    result = run(config, stop_after=arguments.stop_after, use_ray=not arguments.no_ray)
    _print_summary(config, result)
    return 0


def _print_summary(config: "RunConfig", result: "RunResult") -> None:
    """The table at the end, on standard output; nothing for a run that stopped before `select`."""
    from d2prune.report import summary_rows
    from d2prune.report.stage import run_record

    if "select" not in result.manifests:
        return
    rows = summary_rows(run_record(config, result.pool, result.manifests, result.seconds), result.report)
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        print(f"{label:<{width}}  {value}")


def _verify(arguments: argparse.Namespace) -> int:
    from d2prune.verify.folder import verify

    faults = verify(arguments.output, full=arguments.full)
    for fault in faults:
        print(fault)
    print(f"{arguments.output}: {len(faults)} faults" if faults else f"{arguments.output}: no fault found")
    return 1 if faults else 0


def _reshard(arguments: argparse.Namespace) -> int:
    from d2prune.execution import InProcess, OnRay, Resources
    from d2prune.output import training
    from d2prune.reshard.reshard import ReshardParams, reshard

    params = ReshardParams(arguments.samples_per_shard, arguments.shuffle)
    executor = OnRay(None, arguments.workers) if arguments.workers > 1 else InProcess()
    try:
        manifest = reshard(
            arguments.input,
            arguments.subset,
            arguments.output,
            params,
            arguments.work_dir,
            executor,
            Resources(workers=max(arguments.workers, 1)),
        )
    finally:
        executor.close()
    counts = manifest.counts
    print(
        f"{arguments.output}: {counts['written']} samples in {counts['shards']} tars, {counts['missing']} not found"
    )
    if counts["shards"]:
        print(training.command(arguments.output, counts["shards"], counts["written"]))
        print(training.datacomp_command(arguments.output))
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    from d2prune.config.model import RunConfig
    from d2prune.estimate.costs import Fleet
    from d2prune.estimate.workload import calibrate, default_rates, show, workload

    config = RunConfig.load(arguments.config, arguments.set)
    fleet = Fleet(arguments.gpus, arguments.cpus, arguments.gpu_price, arguments.cpu_price)
    for name in ("samples", "cpus"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            raise UserError(f"--{name} {value:g}: expected at least 1")
    samples = None if arguments.samples is None else round(arguments.samples)
    if arguments.calibrate is not None:
        found = calibrate(config, arguments.calibrate)
        show(workload(config, samples, found), found.rates, fleet)
    else:
        show(workload(config, samples), default_rates(config, arguments.embed_rate, fleet), fleet)
    return 0


def _runs(arguments: argparse.Namespace) -> int:
    from d2prune.runs.history import print_runs, prune, work_dir_of

    work_dir = work_dir_of(arguments.place)
    if arguments.prune:
        prune(work_dir, arguments.keep, arguments.yes)
    else:
        print_runs(work_dir)
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    from d2prune.explore.terminal import print_explanations
    from d2prune.runs.finished import open_run

    return print_explanations(open_run(arguments.work_dir, arguments.run), arguments.names)


def _explore(arguments: argparse.Namespace) -> int:
    from d2prune.explore.api import Explorer
    from d2prune.explore.server import serve
    from d2prune.inputs.shards import expand_input
    from d2prune.runs.finished import open_run

    run = open_run(arguments.work_dir, arguments.run)
    urls = {shard.name: shard.url for shard in expand_input(arguments.input)} if arguments.input else None
    serve(Explorer(run, urls), arguments.port)
    return 0


def _list(option: str, kind: type[Any], text: str | None) -> tuple[Any, ...]:
    """Numbers with commas between; none where the option is not given."""
    try:
        return tuple(dict.fromkeys(kind(item) for item in text.split(","))) if text is not None else ()
    except ValueError:
        kinds = "whole numbers" if kind is int else "numbers"
        raise UserError(f"{option} {text}: expected {kinds} with commas between") from None


def _sweep(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from d2prune.config.model import RunConfig
    from d2prune.sweep.page import write_page
    from d2prune.sweep.sweep import Grid, sweep, table

    flagged: list[str] = []
    if arguments.flagged is not None:
        try:
            flagged = Path(arguments.flagged).read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--flagged {arguments.flagged}: cannot be read: {error}") from error
    config = RunConfig.load(arguments.config, arguments.set)
    grid = Grid(
        _list("--fractions", float, arguments.fractions),
        _list("--n-neighbors", int, arguments.n_neighbors),
        _list("--gamma-forward", float, arguments.gamma_forward),
        _list("--gamma-reverse", float, arguments.gamma_reverse),
    )
    found = sweep(config, grid, flagged, use_ray=not arguments.no_ray)
    head, rows = table(found)
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(write_page(found))
    return 0


def _models(_: argparse.Namespace) -> int:
    from d2prune.embed.model.sources import print_models

    print_models()
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from d2prune.demo.tour import tour

    return tour(arguments.folder)


if __name__ == "__main__":
    sys.exit(main())
