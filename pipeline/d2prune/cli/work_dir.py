"""Commands on the `work_dir` of finished runs: `runs`, `explain` and `explore`."""

import argparse
import time
from typing import Any

from d2prune.cli import numbers
from d2prune.cli.locations import location
from d2prune.console import print_line
from d2prune.errors import UserError


def add_commands(commands: Any) -> None:
    """Add the commands to the parser."""
    _add_runs(commands)
    explain = commands.add_parser(
        "explain",
        help="show why samples were kept or dropped",
        description="Show why samples were kept or dropped: their scores, their neighbours, and the "
        "suppression they received and sent.",
    )
    add_work_dir(explain)
    explain.add_argument(
        "names", nargs="+", metavar="UID", help="a uid or its beginning, a key, or SHARD/KEY"
    )
    add_selection(explain)
    explain.set_defaults(command=_explain)

    explore = commands.add_parser(
        "explore",
        help="browse and compare runs in a web browser",
        description="Browse the runs of a work_dir in a web browser on this machine: search samples, see "
        "their neighbours and what another fraction would change, compare two runs, export lists.",
    )
    add_work_dir(explore)
    add_selection(explore)
    explore.add_argument(
        "--compare",
        metavar="RUN[@FRACTION]",
        help="print the address of a comparison with another run, or with a fraction of one, as in @0.2",
    )
    explore.add_argument(
        "--input",
        type=location,
        nargs="+",
        metavar="URL",
        help="current location of the input tars; default: where the run read them",
    )
    explore.add_argument(
        "--index",
        type=location,
        metavar="FOLDER",
        help="folder of the merged view that `d2prune index` wrote, for searches by meaning; default: inside "
        "the work_dir",
    )
    explore.add_argument(
        "--model",
        type=location,
        metavar="MODEL",
        help="model that encodes what is searched for by meaning; default: the one that the run records",
    )
    explore.add_argument("--pretrained", type=location, metavar="NAME", help="its weights")
    explore.add_argument(
        "--port",
        type=numbers.whole(0, 65_535),
        default=0,
        metavar="N",
        help="port to listen on; default: any free port",
    )
    explore.set_defaults(command=_explore)


def add_work_dir(parser: argparse.ArgumentParser) -> None:
    """Add the work_dir of a finished run to a command."""
    parser.add_argument(
        "work_dir", type=location, metavar="WORK_DIR", help="work_dir of a run that completed `select`"
    )


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a selection to a command."""
    parser.add_argument(
        "--run",
        metavar="RUN",
        help="id of the run, as `d2prune runs` prints it, or the fingerprint of its selection, or the "
        "beginning of one; default: the newest selection",
    )


def _explain(arguments: argparse.Namespace) -> int:
    from d2prune.explore.terminal import print_explanations
    from d2prune.runs.finished import open_run

    return print_explanations(open_run(arguments.work_dir, arguments.run), arguments.names)


def _explore(arguments: argparse.Namespace) -> int:
    from d2prune.explore.api import Explorer
    from d2prune.explore.meaning import Meaning
    from d2prune.explore.server import serve
    from d2prune.inputs.shards import expand_input
    from d2prune.runs.finished import open_run

    if arguments.pretrained and not arguments.model:
        raise UserError(f"--pretrained {arguments.pretrained}: expected --model, too")
    run = open_run(arguments.work_dir, arguments.run)
    urls = {shard.name: shard.url for shard in expand_input(arguments.input)} if arguments.input else None
    model = (arguments.model, arguments.pretrained) if arguments.model else None
    explorer = Explorer(run, urls, Meaning(arguments.index, model))
    serve(explorer, arguments.port, explorer.comparison_address(arguments.compare))
    return 0


def _add_runs(commands: Any) -> None:
    parser = commands.add_parser(
        "runs",
        help="list the finished runs of a work_dir, or delete old ones",
        description="List the finished runs of a work_dir, newest first, each with the run that it continues "
        "and what changed since. With --prune, list what old runs "
        "leave behind: outputs in {run_id} folders and artifacts that no kept run needs. --prune --yes "
        "deletes it.",
    )
    parser.add_argument(
        "location",
        type=location,
        metavar="WORK_DIR|OUTPUT",
        help="a work_dir, or an output folder that holds latest.json",
    )
    parser.add_argument(
        "--prune", action="store_true", help="list what can be deleted; the latest run is always kept"
    )
    parser.add_argument(
        "--keep",
        type=numbers.whole(1, numbers.MAX_COUNT),
        default=3,
        metavar="N",
        help="number of newest runs to keep; default: %(default)s",
    )
    parser.add_argument("--yes", action="store_true", help="with --prune: delete")
    parser.set_defaults(command=_runs)


def _runs(arguments: argparse.Namespace) -> int:
    from d2prune.runs.history import find_work_dir

    work_dir = find_work_dir(arguments.location)
    if arguments.prune:
        _prune(work_dir, arguments.keep, arguments.yes)
    else:
        _print_runs(work_dir)
    return 0


def _print_runs(work_dir: str) -> None:
    """Print one line per run, newest first, and one for the run that it continues."""
    from d2prune.runs import history, lineage

    runs = history.read_runs(work_dir)
    entries = [entry for _, entry in runs]
    latest = history.find_latest(entries)
    counts = f"{'samples':>14}  {'kept':>14}  {'size':>9}"
    parameters = f"{'budget':>7}  {'k':>3}  {'gamma':<19}"
    print_line(f"{'run':<16}  {'date (UTC)':<16}  {counts}  {parameters}          output <- input")
    lines = lineage.describe_continued(work_dir, entries)
    for (finished, entry), continued in zip(runs, lines, strict=True):
        date = time.strftime("%Y-%m-%d %H:%M", time.gmtime(finished))
        size = f"{entry.size / 1e9:.2f} GB"
        mark = "latest" if entry in latest else ""
        counts = f"{entry.samples:>14,}  {entry.kept:>14,}  {size:>9}"
        budget, k, gamma, source = _describe_parameters(work_dir, entry.artifacts.get("select", ""))
        parameters = f"{budget:>7}  {k:>3}  {gamma:<19}"
        print_line(f"{entry.run_id}  {date}  {counts}  {parameters}  {mark:<6}  {entry.output}{source}")
        if continued:
            print_line(f"  {continued}")


def _describe_parameters(work_dir: str, selection: str) -> tuple[str, str, str, str]:
    """Budget, k, gammas and input of a run; dashes if its artifacts are gone."""
    from d2prune.runs import description
    from d2prune.runs.finished import open_selection
    from d2prune.store import artifacts

    try:
        run = open_selection(work_dir, selection, artifacts.read_head)
    except UserError:
        return "-", "-", "-", ""
    k = str(run.graph.params.get("n_neighbors") or "-")
    # As configured: of `4.9 (4/median)`, the multiple.
    gammas = [text.rpartition("(")[2].rstrip(")") for text in run.gamma_texts]
    gamma = ", ".join(dict.fromkeys(gammas)) if run.method == "d2" else run.method
    source = description.common_location(list(run.urls.values()))
    return description.budget_text(run.select.params), k, gamma, f" <- {source}" if source else ""


def _prune(work_dir: str, keep: int, yes: bool) -> None:
    """Delete what old runs leave behind, or print what that would be."""
    from d2prune.runs import pruning

    if yes:
        found, status = pruning.prune(work_dir, keep), "deleted"
    else:
        found = pruning.plan_pruning(work_dir, keep)
        status = "would be deleted; --yes deletes them" if found.entries else "to delete"
    for entry in found.entries:
        remark = "" if entry.scheduled else "artifacts only; you may delete the output "
        print_line(f"{entry.run_id}  {entry.kept:,} samples  {remark}{entry.output}")
    for remark in found.remarks:
        print_line(remark)
    print_line(f"{work_dir}: {len(found.entries)} runs and {len(found.folders)} folders {status}")
