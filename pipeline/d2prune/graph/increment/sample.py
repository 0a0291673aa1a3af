"""Steps `sample` and `checked`: the sample that recall is measured on, and its true neighbours.

A sampled row that was sampled before keeps its true neighbours, unless one was removed; the added
rows are compared with it. All others are compared with every row of the pool.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from d2prune.graph.increment.rows import previous_of, read_ranked
from d2prune.graph.steps.edges import DISTANCES, NEAREST
from d2prune.graph.steps.given import draw_sample
from d2prune.graph.steps.job import Job
from d2prune.graph.steps.part_rows import read_rows
from d2prune.graph.steps.quantise import CHECKED
from d2prune.graph.steps.state import POSITIONS, RANKS, ROWS, CheckedSample, commit_checked, read_checked
from d2prune.graph.trained import read_trained
from d2prune.knn.merge import merge
from d2prune.knn.top_k import TopK
from d2prune.store.artifacts import Receipt

Int64 = NDArray[np.int64]

IS_KNOWN = "is-known.npy"


def update_sample(job: Job, _: int) -> Receipt:
    """Draw the sample of this pool, with the true neighbours that are still known."""
    assert job.given is not None
    excluded = read_trained(job.folder, job.given).tuning

    ranks_S, positions_S = draw_sample(job, excluded, partial(read_ranked, job))
    top = TopK.empty(len(ranks_S), job.n_best)
    is_known_S = np.zeros(len(ranks_S), bool)
    before = _read_before(job)
    if before is None:
        rows_SD = read_rows(job, positions_S)
    else:
        order = np.argsort(before.ranks)
        place_S = order[np.searchsorted(before.ranks, ranks_S, sorter=order).clip(max=len(order) - 1)]
        was_sampled_S = before.ranks[place_S] == ranks_S
        fresh = np.flatnonzero(~was_sampled_S)
        rows_SD = np.empty((len(ranks_S), before.rows.shape[1]), np.float32)
        rows_SD[was_sampled_S] = before.rows[place_S[was_sampled_S]]
        if len(fresh):
            rows_SD[fresh] = read_rows(job, positions_S[fresh])
        is_known_S = was_sampled_S & (before.top.positions[place_S] >= 0).all(axis=1)
        top.sq_distances[is_known_S] = before.top.sq_distances[place_S[is_known_S]]
        top.positions[is_known_S] = before.top.positions[place_S[is_known_S]]
    files: dict[str, NDArray[np.generic]] = {
        RANKS: ranks_S,
        POSITIONS: positions_S,
        ROWS: rows_SD,
        IS_KNOWN: is_known_S,
        DISTANCES: top.sq_distances,
        NEAREST: top.positions,
    }
    return job.commit("sample", 0, files)


def _read_before(job: Job) -> CheckedSample | None:
    """The sample of the previous graph, at the positions of this pool; -1 for rows that were removed."""
    previous = previous_of(job)
    if previous.checked is None:
        return None
    before = read_checked(job.folder, previous.checked)
    if not len(before.ranks):
        return None
    nearest = previous.renumber(before.top.positions, job.spans)
    return replace(before, top=TopK(before.top.sq_distances, nearest))


def read_sample(job: Job) -> tuple[CheckedSample, NDArray[np.bool_]]:
    """The sample of this pool, with the true neighbours that are known, and of which rows these are."""
    ranks, positions, rows, is_known, distances, nearest = (
        job.array("sample", 0, name) for name in (RANKS, POSITIONS, ROWS, IS_KNOWN, DISTANCES, NEAREST)
    )
    return CheckedSample(ranks, positions, np.ascontiguousarray(rows), TopK(distances, nearest)), is_known


def merge_sample(job: Job, _: int) -> Receipt:
    """Merge the true neighbours that all shares found."""
    sample, _known = read_sample(job)
    found = [sample.top]
    for share in range(job.slices):
        arrays = [job.array("meet", share, f"{CHECKED}-{name}") for name in (DISTANCES, NEAREST)]
        found.append(TopK(*arrays))
    return commit_checked(job, replace(sample, top=merge(found)))
