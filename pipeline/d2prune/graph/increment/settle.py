"""Steps `settle` and `join`: merge what all shares found; write the state and the undirected graph.

`settle` writes the `state` and `lists` units of its parts and sends their edges to the shares of
both ends; `join` writes the `neighbors` units of its parts. These units have the same keys and
bytes as those of a full build.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from d2prune.graph.increment.meet import share_of
from d2prune.graph.increment.rows import read_part_state, read_ranked, share_parts
from d2prune.graph.increment.sample import read_sample
from d2prune.graph.steps.assign import commit_lists
from d2prune.graph.steps.edges import (
    DISTANCES,
    EDGE,
    EDGES,
    FOUND,
    NEAREST,
    commit_rows,
    edges_of,
    merge_candidates_into,
)
from d2prune.graph.steps.job import Job
from d2prune.graph.steps.search import CANDIDATES, candidate_type
from d2prune.graph.steps.state import commit_state
from d2prune.knn.csr import Graph
from d2prune.knn.merge import without_self
from d2prune.knn.symmetrise import rows_from_edges
from d2prune.knn.top_k import TopK
from d2prune.stage import exchange
from d2prune.store.artifacts import Receipt

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


def settle(job: Job, share: int) -> Receipt:
    """Settle the nearest rows of a share's parts; commit their state and lists; send their edges."""
    met = TopK(job.array("meet", share, DISTANCES), job.array("meet", share, NEAREST))
    checked = read_sample(job)[0].positions
    _merge_candidates(job, share, met)
    edges, found, start_Q = [], [], 0
    for part in share_parts(job, share):
        state, start = read_part_state(job, part), int(job.starts[part])
        rows = slice(start_Q, start_Q + len(state.visited))
        start_Q = rows.stop
        top = TopK(met.sq_distances[rows], met.positions[rows])
        commit_state(job, part, replace(state, top=top))
        commit_lists(job, part, state.groups, state.visited[:, 0])
        own_N = state.groups.kept_N + start
        group_N = state.groups.group_N
        nearest = without_self(TopK(top.sq_distances[group_N], top.positions[group_N]), own_N)
        edges.append(edges_of(nearest, own_N))
        in_part = checked[(checked >= start) & (checked < job.starts[part + 1])]
        found.append(nearest.sq_distances[in_part - start])
    owners = [(records, share_of(job, records["row"])) for records in edges]
    files = {
        EDGES: exchange.pack_batches(owners, job.slices),
        FOUND: np.concatenate(found),
    }
    return job.commit("settle", share, files)


def _merge_candidates(job: Job, share: int, met: TopK) -> None:
    """Merge what each share found for the seekers of a share into the nearest of its distinct rows.

    As they are read: the candidates of all shares together would be a record per seeker and share.
    """
    parts = share_parts(job, share)
    positions_Q = np.concatenate([read_ranked(job, part)[0] + job.starts[part] for part in parts])
    urls = job.urls("meet", job.slices, CANDIDATES)
    for records in exchange.read_all(urls, candidate_type(job.n_best), share):
        merge_candidates_into(met, np.searchsorted(positions_Q, records["query"]), records)


def join(job: Job, share: int) -> Receipt:
    """Write the rows of the undirected graph of a share's parts."""
    edges = exchange.read_concatenated(job.urls("settle", job.slices, EDGES), EDGE, share)
    parts = share_parts(job, share)
    start, stop = int(job.starts[parts.start]), int(job.starts[parts.stop])
    rows_E, neighbours_E, sq_distances_E = (np.ascontiguousarray(edges[name]) for name in EDGE.names or ())
    graph = rows_from_edges(rows_E, neighbours_E, sq_distances_E, start, stop)
    for part in parts:
        low, high = (bound - start for bound in job.spans.bounds(part))
        span = slice(graph.indptr[low], graph.indptr[high])
        rows = Graph(graph.indptr[low : high + 1] - span.start, graph.indices[span], graph.sq_distances[span])
        commit_rows(job, part, rows, np.zeros(high - low, bool))
    return job.commit("join", share, {})
