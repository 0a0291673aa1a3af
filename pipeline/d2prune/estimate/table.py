"""Print a plan as a table."""

import math
from collections.abc import Sequence
from dataclasses import replace

from d2prune.console import format_bytes, print_line
from d2prune.estimate.costs import Fleet, Rates, StagePlan, graph_seconds, make_plan, total_cost
from d2prune.estimate.night import Night, count_sought, increment_seconds, plan_night
from d2prune.estimate.work import Workload

_HEADER = (
    "stage",
    "units",
    "GPU h",
    "CPU h",
    "read",
    "shuffled",
    "written",
    "worker",
    "partitions",
    "wall",
    "limit",
)


def print_plan(
    work: Workload, rates: Rates, fleet: Fleet, selection: str, night: Night | str | None = None
) -> None:
    """Estimate a run and print it on standard output.

    Args:
        work: the run.
        rates: of one worker.
        fleet: the machines.
        selection: describes what the run selects.
        night: the earlier run that it continues, or why it continues none; None: there is none.
    """
    plans = make_plan(work, rates, fleet)
    if isinstance(night, Night):
        work = replace(work, samples=night.rows)
        plans = plan_night(work, rates, fleet, night)
    cost = total_cost(plans, fleet)
    prices = f", {fleet.gpu_price:g} per GPU hour and {fleet.cpu_price:g} per core hour" if cost else ""
    kind = "parts of tables" if work.tables else "shards"
    pool = f"{work.samples:,} samples in {work.shards:,} {kind}"
    size = format_bytes(make_plan(work, rates, fleet)[0].read)
    print_line(f"{pool}, {size}; {fleet.gpus} GPUs, {fleet.cpus} cores{prices}")
    print_line(f"selection: {selection}")
    print_line(f"rates: {rates.source}")
    print_line()
    rows = [_HEADER, *map(_format_row, plans)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    for row in rows:
        print_line("  ".join(f"{text:>{width}}" for text, width in zip(row, widths, strict=True)))
    print_line()
    wall_s = sum(plan.wall_s for plan in plans)
    print_line(f"{'wall time':<12}{format_seconds(wall_s)}")
    if cost:
        print_line(f"{'cost':<12}{cost:,.2f} for the device hours in use")
    print_line(f"{'memory':<12}{format_bytes(max(plan.memory for plan in plans))} for the largest worker")
    peak, stage, left = _find_work_dir_peak(plans, work)
    sizes = f"{format_bytes(peak)} at the peak, in {stage}; {format_bytes(left)} when the run ends"
    print_line(f"{'work_dir':<12}{sizes}")
    print_line(f"{'limit':<12}{_describe_limit(plans, fleet, rates)}")
    if night is not None:
        _print_night(work, rates, plans, night)


def _print_night(work: Workload, rates: Rates, plans: Sequence[StagePlan], night: Night | str) -> None:
    """Print what the run continues, and how its graph is built."""
    if isinstance(night, str):
        print_line(f"{'graph':<12}{night}")
        return
    print_line(
        f"{'continues':<12}graph {night.graph}: {night.new_rows:,} of {night.rows:,} rows are new (shards: "
        f"{night.new_shards:,}, not embedded yet: {night.unembedded_shards:,}), {night.removed_rows:,} rows "
        f"are gone (shards: {night.removed_shards:,})"
    )
    if night.why_full:
        print_line(f"{'graph':<12}built in full: {night.why_full}")
        return
    share = increment_seconds(work, rates, night) / max(graph_seconds(work, rates), 1e-9)
    (graph,) = (plan for plan in plans if plan.stage == "graph")
    print_line(
        f"{'graph':<12}an increment: {share:.0%} of the CPU time of a full build, reads "
        f"{format_bytes(graph.read)}; {count_sought(work, night):,.0f} rows are searched again"
    )
    if night.recall is not None:
        print_line(
            f"{'recall':<12}was {night.recall:.3f}; if it falls below graph.target_recall, the graph is "
            "built in full, with new lists"
        )


def _find_work_dir_peak(plans: Sequence[StagePlan], work: Workload) -> tuple[float, str, float]:
    """Bytes in work_dir at the peak, the stage in which that is, and bytes when the run ends.

    What the graph's workers send each other is stored in work_dir until the graph is complete, except
    for the rows themselves, of which a share of the pool is in transit at a time. What the ranking's
    workers send is not stored there.
    """
    from d2prune.graph.params import Layout

    row = work.row_bytes
    share_of_rows = row / (row + 12 * (work.n_neighbors + 1))
    peak, stage, kept = 0.0, "", 0.0
    for plan in plans:
        kept += 0.0 if plan.stage == "write" else plan.written
        sent = plan.shuffled * share_of_rows if plan.stage == "graph" else 0.0
        in_transit = min(sent, work.samples * row * (Layout.in_transit or math.inf))
        here = kept + in_transit + (plan.shuffled - sent if plan.stage == "graph" else 0.0)
        if here > peak:
            peak, stage = here, plan.stage
    return peak, stage, kept


def _describe_limit(plans: Sequence[StagePlan], fleet: Fleet, rates: Rates) -> str:
    """The stage that takes longest, and what decides its time, in words."""
    slowest = max(plans, key=lambda plan: plan.wall_s)
    n_workers = max(1, min(fleet.cpus, slowest.units))
    causes = {
        "GPU": f"the {fleet.gpus:,} GPUs compute all the time; more of them shorten it",
        "one GPU": "one GPU computes it; more of them do not help",
        "decoding": f"the {fleet.cpus:,} cores decode images more slowly than the GPUs encode them",
        "CPU": f"{n_workers:,} cores compute all the time; "
        + ("more of them shorten it" if slowest.units > fleet.cpus else "there are no more units of work"),
        "store": f"{n_workers:,} workers read and write at {format_bytes(rates.store_bytes_s)}/s each; more "
        "workers or a faster store shorten it",
        "partitions": f"its {slowest.partitions:,} partitions keep fewer than the {fleet.cpus:,} cores busy",
        "output tars": f"its output tars keep fewer than the {fleet.cpus:,} cores busy",
        "one worker": "one worker does it; more machines do not help",
        "start": "most of it is the start of programs",
        "shares": f"its {slowest.partitions:,} shares keep fewer than the {fleet.cpus:,} cores busy",
    }
    share = slowest.wall_s / max(sum(plan.wall_s for plan in plans), 1e-9)
    return f"{slowest.stage} takes {share:.0%} of the time ({slowest.limit}): {causes[slowest.limit]}"


def _format_row(plan: StagePlan) -> tuple[str, ...]:
    return (
        plan.stage,
        f"{plan.units:,}",
        f"{plan.gpu_hours:,.2f}",
        f"{plan.cpu_hours:,.2f}",
        format_bytes(plan.read),
        format_bytes(plan.shuffled),
        format_bytes(plan.written),
        format_bytes(plan.memory),
        f"{plan.partitions:,}",
        format_seconds(plan.wall_s),
        plan.limit,
    )


def format_seconds(seconds: float) -> str:
    """A duration in the unit that suits it, up to days."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:,.1f} days"
