"""The cost of a run that continues an earlier one: what is embedded again, and the graph as an increment.

Pure, like `costs`. The constants are fitted to the measurements in docs/results/incremental.md: at
200,000 rows of 512 values, an increment took 19 us of CPU time for each row that it keeps, and 1.85 times
a full build's time for each row that it searches again. The fit is within a tenth.
"""

from dataclasses import dataclass, replace

from d2prune.estimate.costs import (
    ESTIMATES,
    Fleet,
    Rates,
    StagePlan,
    choose_lists,
    graph_seconds,
    make_plan,
)
from d2prune.estimate.work import Workload

_KEPT_ROW_S = 19e-6 / 512
"""CPU seconds per value of a row that is kept.

The row is read, normalised and compared with the added rows of the lists that it visits.
"""
_SOUGHT_ROWS = 1.85
"""CPU time of a row that is searched again, relative to a row of a full build."""
_SHARE_BYTES = 2.0**30


@dataclass(frozen=True)
class Night:
    """What a run finds of an earlier one.

    Attributes:
        graph: fingerprint of the earlier graph.
        rows: of the whole pool.
        new_shards: shards whose rows its pool does not have.
        new_rows: their rows, estimated from bytes where they are not embedded yet.
        removed_shards: shards of its pool that are gone.
        removed_rows: their rows.
        unembedded_shards: shards that the run embeds.
        unembedded_rows: their rows, estimated.
        why_full: why the graph is built in full; empty: it is an increment.
        recall: of the earlier graph; None: not known.
    """

    graph: str
    rows: int
    new_shards: int
    new_rows: int
    removed_shards: int
    removed_rows: int
    unembedded_shards: int
    unembedded_rows: int
    why_full: str = ""
    recall: float | None = None


def plan_night(work: Workload, rates: Rates, fleet: Fleet, night: Night) -> list[StagePlan]:
    """Estimate every stage of a run that continues an earlier one, in order."""
    embedded = replace(work, samples=night.unembedded_rows, shards=night.unembedded_shards)
    plans = {plan.stage: plan for plan in make_plan(work, rates, fleet)}
    plans["embed"] = ESTIMATES["embed"](embedded, rates, fleet)
    if not night.why_full:
        plans["graph"] = _estimate_increment(work, rates, fleet, night)
    return list(plans.values())


def count_sought(work: Workload, night: Night) -> float:
    """Rows that are searched again: those added, and those that lost one of their k nearest rows."""
    kept = work.samples - night.new_rows
    removed = night.removed_rows / max(kept + night.removed_rows, 1)
    return night.new_rows + kept * (1 - (1 - removed) ** work.n_neighbors)


def increment_seconds(work: Workload, rates: Rates, night: Night) -> float:
    """CPU seconds of the graph as an increment."""
    per_row = graph_seconds(work, rates) / max(work.samples, 1)
    kept = work.samples * work.dimension * work.sides * _KEPT_ROW_S
    return kept + count_sought(work, night) * _SOUGHT_ROWS * per_row


def _estimate_increment(work: Workload, rates: Rates, fleet: Fleet, night: Night) -> StagePlan:
    row, nlist_nprobe = work.row_bytes, choose_lists(work)
    stored = float(work.samples * row)
    shares = max(1, min(round(-(-stored // _SHARE_BYTES)), work.shards))
    # The lists that a row visits, its nearest rows, and its edges in both directions.
    list_bytes = 2 if nlist_nprobe[0] <= 2**15 else 4
    state = nlist_nprobe[1] * list_bytes + 12.0 * (work.n_neighbors + 1)
    edges = 24.0 * work.n_neighbors
    sought = count_sought(work, night) * row
    read = stored + work.samples * (state + edges) + sought * (1 + shares)
    written = work.samples * (state + edges)
    seconds = increment_seconds(work, rates, night)
    workers = max(1, min(fleet.cpus, shares))
    limits = {
        "CPU" if shares >= fleet.cpus else "shares": seconds / workers,
        "store": (read + sought + written) / rates.store_bytes_s / workers,
    }
    limit = max(limits, key=lambda name: limits[name])
    memory = 4e8 + 2 * stored / shares + sought
    units = night.new_shards + 4 * shares + 2
    hours, wall = seconds / 3600, limits[limit] + rates.start_s.get("graph", 0.0)
    return StagePlan("graph", units, 0.0, hours, read, sought, written, memory, shares, wall, limit)
