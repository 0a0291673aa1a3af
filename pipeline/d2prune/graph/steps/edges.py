"""Steps `merge` and `neighbors`: merge candidates into each row's neighbours; write the undirected graph.

`merge` sends every edge to the parts of both its ends; `neighbors` writes a part's rows
(schemas.NEIGHBORS). Both ends of an edge have the same canonical distance, so the rows agree
although no unit sees two parts. `check_symmetry` verifies that they do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from d2prune.errors import BooksError
from d2prune.graph.steps.job import Job
from d2prune.graph.steps.part_rows import local_groups
from d2prune.graph.steps.quantise import CHECKED
from d2prune.graph.steps.search import CANDIDATES, candidate_type
from d2prune.knn.csr import Graph
from d2prune.knn.merge import merge_into, without_self
from d2prune.knn.symmetrise import rows_from_edges
from d2prune.knn.top_k import NO_POSITION, TopK
from d2prune.parts.files import NEIGHBORS
from d2prune.parts.neighbors import to_table
from d2prune.stage import exchange
from d2prune.store.artifacts import Receipt

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

EDGES = "edges.bin"
FOUND = "checked.npy"
DISTANCES, NEAREST = "sq-distances.npy", "nearest.npy"
EDGE = np.dtype([("row", "<i8"), ("neighbour", "<i8"), ("sq_distance", "<f4")])


def merge_candidates(job: Job, part: int) -> Receipt:
    """Merge what all partitions found for a part's queries, for all rows with the same bytes."""
    groups, start = local_groups(job, part), int(job.starts[part])
    positions_Q = groups.first_Q + start
    top = TopK.empty(len(positions_Q), job.n_best)
    urls = job.urls("search", job.partitions * job.slices, CANDIDATES)
    for candidates in exchange.read_all(urls, candidate_type(job.n_best), part):
        merge_candidates_into(top, np.searchsorted(positions_Q, candidates["query"]), candidates)
    own_N = groups.kept_N + start
    found = without_self(TopK(top.sq_distances[groups.group_N], top.positions[groups.group_N]), own_N)

    edges = edges_of(found, own_N)
    owner = job.spans.part_of(edges["row"])

    checked = job.array("quantiser", 0, f"{CHECKED}-positions.npy")
    checked = checked[(checked >= start) & (checked < job.starts[part + 1])]
    files = {
        EDGES: exchange.pack(edges, owner, len(job.parts)),
        FOUND: found.sq_distances[np.searchsorted(own_N, checked)],
        DISTANCES: top.sq_distances,
        NEAREST: top.positions,
    }
    return job.commit("merge", part, files)


def merge_candidates_into(top: TopK, row_R: Int64, candidates: exchange.Records) -> None:
    """Merge candidates, each of another row of `top`, into those rows in place."""
    merged = top[row_R]
    merge_into(
        merged,
        TopK(np.ascontiguousarray(candidates["sq_distances"]), np.ascontiguousarray(candidates["positions"])),
    )
    top.sq_distances[row_R], top.positions[row_R] = merged.sq_distances, merged.positions


def edges_of(found: TopK, own_N: Int64) -> exchange.Records:
    """Return the EDGE records of rows at `own_N` [N], from both ends."""
    exists = found.positions != NO_POSITION
    edges = np.empty(2 * int(exists.sum()), EDGE)
    out, back = np.split(edges, 2)
    out["row"] = np.repeat(own_N, found.positions.shape[1])[exists.ravel()]
    out["neighbour"], out["sq_distance"] = found.positions[exists], found.sq_distances[exists]
    back["row"], back["neighbour"], back["sq_distance"] = out["neighbour"], out["row"], out["sq_distance"]
    return edges


def found_for_checked(job: Job) -> Float32:
    """Read the squared distances found for the checked sample, float32 [S, k], by position."""
    return np.concatenate([job.array("merge", part, FOUND) for part in range(len(job.parts))])


def write_neighbors(job: Job, part: int) -> Receipt:
    """Write a part's rows of the undirected graph."""
    edges = exchange.read_concatenated(job.urls("merge", len(job.parts), EDGES), EDGE, part)
    start, stop = job.spans.bounds(part)
    rows_E, neighbours_E, sq_distances_E = (np.ascontiguousarray(edges[name]) for name in EDGE.names or ())
    graph = rows_from_edges(rows_E, neighbours_E, sq_distances_E, start, stop)
    cut_off_N = np.ones(stop - start, bool)
    cut_off_N[local_groups(job, part).kept_N] = False
    return commit_rows(job, part, graph, cut_off_N)


def commit_rows(job: Job, part: int, graph: Graph, cut_off_N: NDArray[np.bool_]) -> Receipt:
    """Commit the `neighbors` unit of a part.

    Args:
        job: the graph.
        part: number of the part.
        graph: the part's N rows; indices are canonical positions.
        cut_off_N: bool [N], the rows that the cut-off excludes.
    """
    start, stop = job.spans.bounds(part)
    rows_E = np.repeat(np.arange(start, stop), np.diff(graph.indptr))
    is_upper_E = graph.indices > rows_E
    hash_E = _hash_edges(rows_E, graph.indices, graph.sq_distances)
    counters = {"nodes": graph.n_nodes, "edges": int(is_upper_E.sum()), "cut_off": int(cut_off_N.sum())}
    # As text, because many JSON readers hold numbers as doubles and would round a 64-bit sum.
    facts = {name: str(hash_E[chosen].sum()) for name, chosen in (("out", is_upper_E), ("back", ~is_upper_E))}
    return job.commit("neighbors", part, {NEIGHBORS: to_table(graph, cut_off_N)}, counters, facts)


def write_no_neighbors(job: Job, part: int) -> Receipt:
    """Commit the `neighbors` unit of a part of a graph without edges; no embedding is read."""
    start, stop = job.spans.bounds(part)
    no_edges = Graph(np.zeros(stop - start + 1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    cut_off_N = np.zeros(stop - start, bool)
    if job.cut_off is not None:
        cut_off_N = job.cut_off.drop_mask(job.pool, part)
    return commit_rows(job, part, no_edges, cut_off_N)


def check_symmetry(receipts: Sequence[Receipt]) -> None:
    """Check that every edge i -> j has a twin j -> i of the same distance, by sums of edge hashes.

    Raises:
        BooksError: the sums of the two directions differ.
    """
    out, back = (sum(int(receipt.facts[name]) for receipt in receipts) % 2**64 for name in ("out", "back"))
    if out != back:
        raise BooksError(
            f"graph is not symmetric: found hash sum {out} for edges to later samples and {back} "
            "for edges to earlier samples; expected equal sums"
        )


def _hash_edges(rows_E: Int64, neighbours_E: Int64, sq_distances_E: Float32) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each undirected edge (SplitMix64's mixing), the same from both ends."""
    mixed = np.minimum(rows_E, neighbours_E).astype(np.uint64)
    for value in (np.maximum(rows_E, neighbours_E).astype(np.uint64), sq_distances_E.view(np.uint32)):
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9) + value
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed
