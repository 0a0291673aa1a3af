"""Print a plan as a table."""

from d2prune.console import format_bytes, print_line
from d2prune.estimate.costs import Fleet, Rates, StagePlan, Workload, make_plan, total_cost

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


def print_plan(work: Workload, rates: Rates, fleet: Fleet, selection: str) -> None:
    """Estimate a run and print it on standard output; `selection` describes what it selects."""
    plans = make_plan(work, rates, fleet)
    cost = total_cost(plans, fleet)
    prices = f", {fleet.gpu_price:g} per GPU hour and {fleet.cpu_price:g} per core hour" if cost else ""
    pool = f"{work.samples:,} samples in {work.shards:,} shards"
    size = format_bytes(work.samples * work.sample_bytes)
    print_line(f"{pool}, {size}; {fleet.gpus} GPUs, {fleet.cpus} cores{prices}")
    print_line(f"selection: {selection}")
    print_line(f"rates: {rates.source}")
    print_line()
    rows = [_HEADER, *map(_format_row, plans)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    for row in rows:
        print_line("  ".join(f"{text:>{width}}" for text, width in zip(row, widths, strict=True)))
    slowest = max(plans, key=lambda plan: plan.wall_s)
    print_line()
    print_line(f"{'wall time':<12}{_format_seconds(sum(plan.wall_s for plan in plans))}")
    if cost:
        print_line(f"{'cost':<12}{cost:,.2f} for the device hours in use")
    print_line(f"{'memory':<12}{format_bytes(max(plan.memory for plan in plans))} for the largest worker")
    print_line(f"{'limit':<12}{slowest.limit}, in {slowest.stage}")


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
        _format_seconds(plan.wall_s),
        plan.limit,
    )


def _format_seconds(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
