"""Commands that take a configuration: `run`, `plan` and `sweep`."""

import argparse
from typing import TYPE_CHECKING, Any

from d2prune.cli import numbers
from d2prune.cli.configuring import add_config, load_config, restate
from d2prune.cli.locations import location
from d2prune.console import print_line
from d2prune.errors import UserError

if TYPE_CHECKING:
    from d2prune.config.model import RunConfig
    from d2prune.runs.driver import RunResult
    from d2prune.sweep.measure import SweepMethod


def add_commands(commands: Any) -> None:
    """Add the commands to the parser."""
    _add_run(commands)
    _add_plan(commands)
    _add_sweep(commands)


def _add_run(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        help="filter a pool",
        description="Filter a pool. The same command resumes an interrupted run.",
    )
    add_config(parser, "configuration file; docs/configuration.md describes all keys")
    parser.add_argument(
        "--workers",
        type=numbers.whole(1, numbers.MAX_WORKERS),
        metavar="N",
        help="number of workers, the same as --set ray.workers=N; default: as many as the cores or GPUs "
        "allow",
    )
    parser.add_argument("--no-ray", action="store_true", help="run one worker in this process, without Ray")
    parser.add_argument(
        "--stop-after",
        metavar="STAGE",
        help="last stage to run: embed, rescore, graph, dedup, rank, select, write or report; "
        "default: all stages",
    )
    parser.set_defaults(command=_run)


def _run(arguments: argparse.Namespace) -> int:
    from d2prune.runs.driver import run
    from d2prune.runs.stages import needs_budget

    if arguments.workers is not None:
        arguments.set.append(f"ray.workers={arguments.workers}")
    config = load_config(arguments, needs_budget(arguments.stop_after))
    result = run(config, stop_after=arguments.stop_after, use_ray=not arguments.no_ray)
    _print_summary(arguments, config, result)
    return 0


def _print_summary(arguments: argparse.Namespace, config: "RunConfig", result: "RunResult") -> None:
    """Print the summary table; of a run that stopped before `select`, with the next step."""
    from d2prune.report.stage import run_record
    from d2prune.report.summary import partial_rows, summary_rows

    if "select" in result.manifests:
        config = config.model_copy(update={"output": result.output})
        rows = summary_rows(run_record(config, result.pool, result.manifests, result.seconds), result.report)
    else:
        rows = partial_rows(result.manifests, result.seconds, config.work_dir)
        again = restate(arguments, "run") + (" --no-ray" if arguments.no_ray else "")
        if arguments.fraction is None and not arguments.config:
            again += " --fraction 0.3"
        rows.append(("continue with", again))
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        print_line(f"{label:<{width}}  {value}")


def _add_plan(commands: Any) -> None:
    parser = commands.add_parser(
        "plan",
        help="estimate the time, bytes, memory and cost of a run",
        description="Estimate device hours, bytes, memory, time and cost of a run before it starts. Reads "
        "the configuration and lists the input; only --calibrate reads samples. If the work_dir holds an "
        "earlier graph, the plan is that of an increment, or states why the graph is built in full.",
    )
    add_config(parser, "configuration file of the run")
    parser.add_argument(
        "--samples",
        type=numbers.number(1, numbers.MAX_COUNT),
        metavar="N",
        help="samples in the pool, such as 12.8e9; default: estimated from the sizes of the input files",
    )
    parser.add_argument(
        "--gpus",
        type=numbers.whole(0, numbers.MAX_WORKERS),
        default=0,
        metavar="N",
        help="number of GPUs; default: %(default)s",
    )
    parser.add_argument(
        "--cpus",
        type=numbers.whole(1, numbers.MAX_CORES),
        default=16,
        metavar="N",
        help="number of CPU cores; default: %(default)s",
    )
    price = numbers.number(0, numbers.MAX_PRICE)
    parser.add_argument("--gpu-price", type=price, default=0.0, metavar="X", help="price of one GPU hour")
    parser.add_argument("--cpu-price", type=price, default=0.0, metavar="X", help="price of one core hour")
    parser.add_argument(
        "--embed-rate",
        type=numbers.number(0, 10**9, above=True),
        metavar="X",
        help="samples/s that one embedding worker processes",
    )
    parser.add_argument(
        "--calibrate",
        type=numbers.whole(2, numbers.MAX_WORKERS),
        nargs="?",
        const=2,
        metavar="SHARDS",
        help="measure the rates by filtering the first SHARDS shards (%(const)s if no number is given)",
    )
    parser.set_defaults(command=_plan)


def _plan(arguments: argparse.Namespace) -> int:
    from d2prune.estimate.costs import Fleet
    from d2prune.estimate.table import print_plan
    from d2prune.estimate.workload import default_rates, describe_selection, make_workload
    from d2prune.runs.calibrate import calibrate
    from d2prune.runs.forecast import forecast_night

    config, assumed = _load_plan(arguments)
    fleet = Fleet(arguments.gpus, arguments.cpus, arguments.gpu_price, arguments.cpu_price)
    samples = None if arguments.samples is None else round(arguments.samples)
    if arguments.calibrate is not None:
        measured = calibrate(config, arguments.calibrate)
        work, rates = make_workload(config, samples, measured.pool), measured.rates
    else:
        work, rates = make_workload(config, samples), default_rates(config, arguments.embed_rate, fleet)
    # A number of samples describes a pool that may not exist yet.
    night = forecast_night(config, work.samples) if samples is None else None
    print_plan(work, rates, fleet, describe_selection(config), night)
    if assumed:
        print_line(f"{'assumed':<12}{', '.join(assumed)}; name a configuration for another plan")
    return 0


def _load_plan(arguments: argparse.Namespace) -> "tuple[RunConfig, list[str]]":
    """Read the configuration; without one, fill in what a number of samples leaves open.

    Returns:
        The configuration, and the assumptions in words.
    """
    if arguments.config is not None or arguments.samples is None:
        return load_config(arguments), []
    given = {override.partition("=")[0] for override in arguments.set}
    places = {"input": arguments.pool, "work_dir": arguments.work_dir, "output": arguments.output}
    assumed, words = [f"{key}=planned/{key}" for key, value in places.items() if not value], []
    embeds = arguments.gpus or arguments.embed_rate is not None
    if embeds and arguments.model is None and not given & {"embed.model", "embed.models"}:
        assumed += ["embed.model=ViT-L-14", "embed.pretrained=openai"]
        words.append("tars that ViT-L-14 embeds")
    elif arguments.model is None and not given & {"embed.model", "embed.models"}:
        words.append("tables of embeddings as in DataComp's metadata (for tars, add --gpus or --embed-rate)")
    if arguments.fraction is None and not given & {"select.fraction", "select.size", "select.min_score"}:
        assumed.append("select.fraction=0.3")
        words.append("30 % kept")
    arguments.set[:0] = assumed
    return load_config(arguments), words


def _add_sweep(commands: Any) -> None:
    parser = commands.add_parser(
        "sweep",
        help="compare fractions, neighbourhoods and gammas on stored embeddings",
        description="Compare every combination of the given values on the stored embeddings and scores, as a "
        "table and an HTML page. A graph for another k is built from the stored embeddings and kept; nothing "
        "is embedded again.",
    )
    add_config(parser, "configuration file of a run whose pool is embedded")
    for option, read, key, example in (
        ("--fractions", numbers.number(0, 1, above=True), "select.fraction", "0.1,0.3"),
        ("--n-neighbors", numbers.whole(1, 1024), "graph.n_neighbors", "1,5,10"),
        ("--gamma-forward", numbers.gamma, "select.gamma_forward", "auto,1"),
        ("--gamma-reverse", numbers.gamma, "select.gamma_reverse", "2/median,auto,1"),
    ):
        parser.add_argument(
            option,
            type=numbers.several(read),
            default=(),
            metavar="LIST",
            help=f"values of {key}, such as {example}; default: the configured one",
        )
    parser.add_argument(
        "--methods",
        metavar="LIST",
        help="methods to compare, of d2, score (top by difficulty), s_clip_loss (top by that score, if a run "
        "has computed it), semdedup (near-duplicates last, then by difficulty) and random; default: all",
    )
    parser.add_argument(
        "--flagged",
        type=location,
        metavar="FILE",
        help="file of uids, one per line, such as known mismatches; the table shows the share that is "
        "dropped",
    )
    parser.add_argument("--no-ray", action="store_true", help="build graphs in this process, without Ray")
    parser.set_defaults(command=_sweep)


def _sweep(arguments: argparse.Namespace) -> int:
    from d2prune.sweep.evaluate import SweepGrid, run_sweep
    from d2prune.sweep.page import explain_recommendations, outcome_table, write_page

    grid = SweepGrid(
        arguments.fractions,
        arguments.n_neighbors,
        arguments.gamma_forward,
        arguments.gamma_reverse,
        _parse_methods(arguments.methods),
    )
    flagged = _read_uids("--flagged", arguments.flagged) if arguments.flagged is not None else []
    config = load_config(arguments, needs_budget=not arguments.fractions)
    found = run_sweep(config, grid, flagged, use_ray=not arguments.no_ray)
    head, rows = outcome_table(found)
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        print_line("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for reason in explain_recommendations(found):
        print_line(reason)
    print_line(write_page(found))
    return 0


def _parse_methods(text: str | None) -> "tuple[SweepMethod, ...]":
    from d2prune.sweep.measure import METHODS

    wanted = set(METHODS) if text is None else {item.strip() for item in text.split(",")}
    if not wanted <= set(METHODS):
        raise UserError(f"--methods {text}: expected some of {', '.join(METHODS)}")
    return tuple(method for method in METHODS if method in wanted)


def _read_uids(option: str, path: str) -> list[str]:
    from pathlib import Path

    from d2prune import store
    from d2prune.inputs.sample_id import normal_uid

    store.check_readable(option, path)
    try:
        return [normal_uid(text) or text for text in Path(path).read_text(encoding="utf-8").split()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{option} {path}: cannot be read: {error}") from error
