"""Steps `state` and `checked`: what a complete graph keeps so that the next one can start from it.

Per part: the lists that each distinct row visits, its K nearest rows before the graph is made
symmetric, the groups of identical rows, and the rows of lowest rank. Per graph: the sample that
recall was measured on, with its true neighbours; only where the sample is the stable one. Graphs
with a cut-off keep no state. N rows, Q distinct rows, P probes, K nearest, S sampled rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.graph.steps.assign import VISITED
from d2prune.graph.steps.edges import DISTANCES, NEAREST
from d2prune.graph.steps.job import Job
from d2prune.graph.steps.part_rows import LOCAL_GROUPS, RANKED, LocalGroups, local_groups
from d2prune.graph.steps.quantise import CHECKED, merge_truth
from d2prune.knn.top_k import NO_POSITION, TopK
from d2prune.stage import exchange
from d2prune.store import artifacts
from d2prune.store.artifacts import Receipt
from d2prune.store.npy import load_array

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

RANKS, POSITIONS, ROWS = "ranks.npy", "positions.npy", "rows.npy"
_NONE = np.uint32(2**32 - 1)


@dataclass(frozen=True)
class PartState:
    """What is kept of a part.

    Attributes:
        groups: its rows, grouped by their bytes.
        visited: int32 [Q, P], lists that each distinct row visits, home first; -1 for none.
        top: K nearest of each distinct row among the rows of these lists, itself included.
        ranked: RANKED_ROW records.
    """

    groups: LocalGroups
    visited: Int32
    top: TopK
    ranked: exchange.Records


@dataclass(frozen=True)
class CheckedSample:
    """The sample that recall is measured on.

    Attributes:
        ranks: uint64 [S].
        positions: int64 [S], ascending: the first row of each rank.
        rows: float32 [S, D].
        top: K nearest of each among all rows of the pool.
    """

    ranks: NDArray[np.uint64]
    positions: Int64
    rows: Float32
    top: TopK


def write_state(job: Job, part: int) -> Receipt:
    """Keep the state of a part of a graph that was built in full."""
    top = TopK(job.array("merge", part, DISTANCES), job.array("merge", part, NEAREST))
    visited_QP = job.array("assign", part, VISITED)
    ranked = job.array("distinct", part, RANKED)
    return commit_state(job, part, PartState(local_groups(job, part), visited_QP, top, ranked))


def commit_state(job: Job, part: int, state: PartState) -> Receipt:
    """Commit the `state` unit of a part, in the smallest types that hold its values."""
    n_rows, n_distinct = len(state.groups.group_N), len(state.groups.first_Q)
    list_type = np.int16 if job.nlist < 2**15 else np.int32
    nearest = state.top.positions
    if len(job.spans) < _NONE:
        nearest = np.where(nearest == NO_POSITION, _NONE, nearest).astype(np.uint32)
    files: dict[str, NDArray[Any]] = {
        VISITED: state.visited.astype(list_type),
        DISTANCES: state.top.sq_distances,
        NEAREST: nearest,
        RANKED: state.ranked,
    }
    if n_distinct < n_rows:
        files[LOCAL_GROUPS] = state.groups.group_N.astype(np.int32)
    return job.commit("state", part, files, facts={"rows": n_rows, "distinct": n_distinct})


def read_state(folder: str, receipt: Receipt) -> PartState:
    """Read the state of a part of an earlier graph; positions are those of its pool.

    Args:
        folder: `work_dir/graph`.
        receipt: of the unit.
    """
    nearest = unpack_positions(_read_array(folder, receipt, NEAREST))
    return PartState(
        _read_groups(folder, receipt),
        _read_array(folder, receipt, VISITED).astype(np.int32),
        TopK(_read_array(folder, receipt, DISTANCES), nearest),
        _read_array(folder, receipt, RANKED),
    )


def read_ranked_rows(folder: str, receipt: Receipt) -> tuple[Int64, exchange.Records]:
    """Read the first rows of a part's groups, and its RANKED_ROW records; arguments as of `read_state`."""
    return _read_groups(folder, receipt).first_Q, _read_array(folder, receipt, RANKED)


def _read_groups(folder: str, receipt: Receipt) -> LocalGroups:
    if any(file.name == LOCAL_GROUPS for file in receipt.files):
        return to_groups(_read_array(folder, receipt, LOCAL_GROUPS).astype(np.int64))
    row_N = np.arange(receipt.facts["rows"])
    return LocalGroups(row_N, row_N, row_N)


def _read_array(folder: str, receipt: Receipt, name: str) -> NDArray[Any]:
    return load_array(artifacts.read_file(folder, receipt, name))


def unpack_positions(nearest: NDArray[Any]) -> Int64:
    """Return stored positions as int64."""
    if nearest.dtype == np.uint32:
        return np.where(nearest == _NONE, NO_POSITION, nearest.astype(np.int64))
    return nearest


def to_groups(group_N: Int64) -> LocalGroups:
    """Return the groups of a part without a cut-off, from the group of each row."""
    _, first_Q = np.unique(group_N, return_index=True)
    return LocalGroups(np.arange(len(group_N)), group_N, first_Q.astype(np.int64))


def write_checked(job: Job, _: int) -> Receipt:
    """Keep the sample of a graph that was built in full with a given quantiser."""
    names = (RANKS, f"{CHECKED}-positions.npy", f"{CHECKED}.npy")
    ranks, positions, rows = (job.array("quantiser", 0, name) for name in names)
    return commit_checked(job, CheckedSample(ranks, positions, rows, merge_truth(job, CHECKED)))


def commit_checked(job: Job, sample: CheckedSample) -> Receipt:
    """Commit the `checked` unit."""
    files: Mapping[str, NDArray[Any]] = {
        RANKS: sample.ranks,
        POSITIONS: sample.positions,
        ROWS: sample.rows,
        DISTANCES: sample.top.sq_distances,
        NEAREST: sample.top.positions,
    }
    return job.commit("checked", 0, files)


def read_checked(folder: str, receipt: Receipt) -> CheckedSample:
    """Read the sample of an earlier graph; positions are those of its pool."""
    ranks, positions, rows, distances, nearest = (
        load_array(artifacts.read_file(folder, receipt, name))
        for name in (RANKS, POSITIONS, ROWS, DISTANCES, NEAREST)
    )
    return CheckedSample(ranks, positions, np.ascontiguousarray(rows), TopK(distances, nearest))
