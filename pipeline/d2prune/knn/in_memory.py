"""Builds the kNN graph of embeddings in memory.

Reads embeddings [N, D]; returns a `Graph` and a report on how it was built. Invariant: the graph is
a function of the embeddings and the parameters, never of threads, tiles or machine. Without a
target recall, with a target of 1, or below EXACT_BELOW rows, it is the exact kNN graph, ties to the
lower position.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2prune.arguments import as_number, as_rows, as_whole
from d2prune.compiled.threads import available_cores, parallel_ranges
from d2prune.errors import ArgumentError
from d2prune.knn.backend import block_rows, fit_projection, search_probes
from d2prune.knn.block_search import Offers
from d2prune.knn.csr import Graph
from d2prune.knn.duplicates import DuplicateGroups, collapse, expand
from d2prune.knn.features import unit_rows
from d2prune.knn.lists import Lists
from d2prune.knn.merge import without_self
from d2prune.knn.probes import find_probes, tune_nprobe
from d2prune.knn.projections import ProjectedRows, Projection
from d2prune.knn.quantiser import Quantiser, default_nlist, train, training_sample
from d2prune.knn.recall import RECALL_QUERIES, Recall, brute_force, measure, recall_samples
from d2prune.knn.stable_sample import NO_RANKS, lowest, rank_rows
from d2prune.knn.symmetrise import symmetrise
from d2prune.knn.top_k import TopK

log = logging.getLogger(__name__)

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

EXACT_BELOW = 20_000
# nprobe as assumed before it is known, to decide whether projections pay.
_TYPICAL_NPROBE = 16


@dataclass(frozen=True)
class TrainedLists:
    """Lists that a build trained, and that later builds search again.

    Attributes:
        centroids: float32 [L, D].
        nprobe: lists that each row visits.
        tuning: uint64, ranks (`stable_sample`) of the rows that nprobe was chosen on, which measure
            no recall.
        rows: of the pool that the lists were trained for, duplicates included.
    """

    centroids: Float32
    nprobe: int
    tuning: NDArray[np.uint64]
    rows: int


@dataclass(frozen=True)
class KnnReport:
    """A graph and how it was built.

    Attributes:
        graph: the undirected graph.
        neighbours: int64 [N, k], directed neighbours, nearest first; NO_POSITION if fewer exist.
        sq_distances: float32 [N, k], inf where there is none.
        nlist: lists searched; 0 if exact.
        nprobe: lists visited by each row; 0 if exact.
        recall: measured on rows that were not used to choose nprobe; 1 if exact; None if not
            measured.
        lists: None if exact.
    """

    graph: Graph
    neighbours: Int64
    sq_distances: Float32
    nlist: int
    nprobe: int
    recall: Recall | None
    lists: TrainedLists | None = None


def knn_graph(
    embeddings: ArrayLike,
    n_neighbors: int = 5,
    target_recall: float | None = None,
    seed: int = 0,
    nlist: int | None = None,
    nprobe: int | None = None,
) -> Graph:
    """Return the undirected graph of each row's nearest neighbours (paper, section 3.1).

    Args:
        embeddings: numbers [N, D]: a numpy array, a torch tensor, or what else `d2prune.arguments`
            takes; rows are normalised first.
        n_neighbors: k >= 1; in a pool of k rows or fewer, each row gets all the others.
        target_recall: in (0, 1]; searches as many inverted lists as reach this recall@k. 1 or None:
            exact, unless `nprobe` is given.
        seed: of the k-means sample and the recall samples.
        nlist: number of lists; None chooses from N.
        nprobe: lists each row visits, instead of a target; nprobe = nlist gives the exact graph.

    Returns:
        Graph(indptr int64 [N+1], indices int64 [E], sq_distances float32 [E]); symmetric, rows
        sorted by index.

    Raises:
        ArgumentError: no rows, or parameters out of range.
        DegenerateEmbeddingError: a row is zero, NaN or infinite.
    """
    rows_ND = as_rows(embeddings)
    n_neighbors = min(as_whole(n_neighbors, "n_neighbors", 1), max(len(rows_ND) - 1, 1))
    return knn_graph_report(rows_ND, n_neighbors, target_recall, seed, nlist, nprobe).graph


def knn_graph_report(
    embeddings: NDArray[Any],
    n_neighbors: int = 5,
    target_recall: float | None = None,
    seed: int = 0,
    nlist: int | None = None,
    nprobe: int | None = None,
    threads: int | None = None,
    recall_queries: int = RECALL_QUERIES,
    given: TrainedLists | None = None,
    are_unit: bool = False,
) -> KnnReport:
    """Build the graph as `knn_graph` does; also return how it was built.

    Args:
        embeddings: as in `knn_graph`.
        n_neighbors: as in `knn_graph`.
        target_recall: as in `knn_graph`.
        seed: as in `knn_graph`.
        nlist: as in `knn_graph`.
        nprobe: as in `knn_graph`.
        threads: workers; None uses all available cores. Changes speed only.
        recall_queries: rows of the sample that chooses nprobe, and of the one that recall is
            measured on; 0 measures nothing, and requires nprobe.
        given: lists to search instead of training some, unless the search is exact.
        are_unit: whether the rows are those that `features` returns: to normalise a row again may change
            its last bits.

    Returns:
        The graph, the directed neighbours, the lists used and the recall reached.

    Raises:
        ArgumentError: as in `knn_graph`.
    """
    embeddings = as_rows(embeddings)
    _check_arguments(n_neighbors, target_recall, seed, nlist, nprobe)
    threads = threads or available_cores()
    rows_ND = embeddings if are_unit else unit_rows(embeddings, threads=threads)
    n_rows = len(rows_ND)
    groups = collapse(rows_ND, threads)
    rows_RD = rows_ND if len(groups.first_R) == n_rows else rows_ND[groups.first_R]
    in_lists = wants_lists(n_rows, target_recall, nprobe)
    if in_lists:
        if given is None:
            trained, checked_R, projection = _train_lists(
                rows_RD, n_rows, n_neighbors, target_recall, seed, nlist, nprobe, threads, recall_queries
            )
        else:
            trained = given
            n_pairs = len(rows_RD) * (len(given.centroids) + _TYPICAL_NPROBE * n_rows // len(given.centroids))
            projection = fit_projection(given.centroids, len(rows_RD), n_pairs)
            checked_R = np.sort(lowest(rank_rows(rows_RD, seed, threads), recall_queries, given.tuning))
        nlist, nprobe = len(trained.centroids), trained.nprobe
        top = _search_lists(rows_RD, groups.first_R, trained, n_neighbors + 1, threads, projection)
    else:
        top = brute_force(rows_RD, _split_blocks(rows_RD, groups.first_R), n_neighbors + 1, threads)
        nlist = nprobe = 0
        trained = None
        checked_R = np.empty(0, np.int64)
    own_N = np.arange(n_rows)
    found = _expand_to_rows(top, groups, own_N)
    recall = None if in_lists else Recall(1.0, 1.0, 1.0, n_rows)
    if len(checked_R):
        truth = brute_force(
            rows_RD[checked_R], _split_blocks(rows_RD, groups.first_R), n_neighbors + 1, threads
        )
        sample = groups.first_R[checked_R]
        true = without_self(expand(truth, groups, own_N), sample)
        recall = measure(found.sq_distances[sample], true.sq_distances)
        log.info("recall@%d %.4f (95%%: %.4f to %.4f)", n_neighbors, recall.value, recall.low, recall.high)
    graph = symmetrise(found.positions, found.sq_distances)
    return KnnReport(graph, found.positions, found.sq_distances, nlist, nprobe, recall, trained)


def wants_lists(n_rows: int, target_recall: float | None, nprobe: int | None) -> bool:
    """Return whether a pool is searched in lists; otherwise every row is compared with every other.

    No sample proves a recall of 1, so such a target is exact.
    """
    return nprobe is not None or (target_recall not in (None, 1) and n_rows >= EXACT_BELOW)


def _check_arguments(
    n_neighbors: int,
    target_recall: float | None,
    seed: int,
    nlist: int | None,
    nprobe: int | None,
) -> None:
    as_whole(n_neighbors, "n_neighbors", 1)
    as_whole(seed, "seed", 0)
    if target_recall is not None:
        expected = "0 < target_recall <= 1, or None for exact"
        as_number(target_recall, "target_recall", expected, lambda value: 0 < value <= 1)
    if target_recall is not None and nprobe is not None:
        raise ArgumentError(
            f"found target_recall {target_recall} and nprobe {nprobe}; expected only one of them"
        )
    for name, value in (("nlist", nlist), ("nprobe", nprobe)):
        if value is not None:
            as_whole(value, name, 1)


def _split_blocks(rows_RD: Float32, positions_R: Int64) -> Iterator[tuple[Float32, Int64]]:
    block = block_rows(rows_RD.shape[1])
    for start in range(0, len(rows_RD), block):
        yield rows_RD[start : start + block], positions_R[start : start + block]


def _expand_to_rows(top: TopK, groups: DuplicateGroups, own_N: Int64) -> TopK:
    """Give every row the neighbours of its group, without itself."""
    expanded = expand(top, groups, own_N)
    if len(groups.first_R) < len(own_N):
        expanded = TopK(expanded.sq_distances[groups.group_N], expanded.positions[groups.group_N])
    return without_self(expanded, own_N)


def _train_lists(
    rows_RD: Float32,
    n_rows: int,
    n_neighbors: int,
    target_recall: float | None,
    seed: int,
    nlist: int | None,
    nprobe: int | None,
    threads: int,
    recall_queries: int,
) -> tuple[TrainedLists, Int64, Projection | None]:
    """Train lists on R distinct rows; return them, the rows to measure recall on, and their projection."""
    n_distinct = len(rows_RD)
    nlist = min(nlist or default_nlist(n_distinct), n_distinct)
    training_SD = rows_RD[training_sample(n_distinct, nlist, seed)]
    # A row is compared with `nlist` centroids, then with the N / nlist rows of each list it visits.
    n_pairs = n_distinct * (nlist + _TYPICAL_NPROBE * n_distinct // nlist)
    projection = fit_projection(training_SD, n_distinct, n_pairs)
    quantiser = Quantiser(train(training_SD, nlist, seed, threads=threads), projection=projection)
    sample_S, checked_R = recall_samples(n_distinct, recall_queries, seed)
    tuning = NO_RANKS
    if nprobe is None:
        assert target_recall is not None
        nprobe = _tune_nprobe(rows_RD, sample_S, quantiser, n_neighbors, target_recall, threads)
        tuning = np.sort(rank_rows(rows_RD[sample_S], seed))
        log.info("nlist %d, nprobe %d for recall %.3f", nlist, nprobe, target_recall)
    return TrainedLists(quantiser.centroids, min(nprobe, nlist), tuning, n_rows), checked_R, projection


def _search_lists(
    rows_RD: Float32,
    positions_R: Int64,
    trained: TrainedLists,
    n_best: int,
    threads: int,
    projection: Projection | None,
) -> TopK:
    """Search the lists that each of R rows visits."""
    quantiser = Quantiser(trained.centroids, projection=projection)
    projected = None if projection is None else projection.project(rows_RD, threads)
    probes_RP = find_probes(quantiser, rows_RD, trained.nprobe, threads, projected)
    return search_in_memory(rows_RD, positions_R, quantiser.centroids, probes_RP, n_best, threads, projected)


def _tune_nprobe(
    rows_RD: Float32,
    sample_S: Int64,
    quantiser: Quantiser,
    n_neighbors: int,
    target_recall: float,
    threads: int,
) -> int:
    n_rows = len(rows_RD)
    truth = brute_force(
        rows_RD[sample_S], _split_blocks(rows_RD, np.arange(n_rows)), n_neighbors + 1, threads
    )
    true_SK = without_self(truth, sample_S).positions
    return tune_nprobe(quantiser, rows_RD[sample_S], true_SK, rows_RD.__getitem__, target_recall, threads)


def search_in_memory(
    rows_RD: Float32,
    positions_R: Int64,
    centroids_LD: Float32,
    probes_RP: Int32,
    n_best: int,
    threads: int = 1,
    projected: ProjectedRows | None = None,
) -> TopK:
    """Compare the rows of which one visits the other's home list.

    Args:
        rows_RD: float32 [R, D], contiguous.
        positions_R: int64 [R], canonical positions.
        centroids_LD: float32 [L, D].
        probes_RP: int32 [R, P], lists of each row, home first.
        n_best: K, which includes the row itself.
        threads: workers; changes speed only.
        projected: projections of the rows; changes speed only.

    Returns:
        The K nearest of each row, in the order of `rows_RD`.
    """
    nlist, n_rows = len(centroids_LD), len(rows_RD)
    order_R = np.argsort(probes_RP[:, 0], kind="stable")
    indptr = np.zeros(nlist + 1, np.int64)
    np.cumsum(np.bincount(probes_RP[:, 0], minlength=nlist), out=indptr[1:])
    ordered_RD = np.empty_like(rows_RD)

    def gather(start: int, stop: int) -> None:
        np.take(rows_RD, order_R[start:stop], axis=0, out=ordered_RD[start:stop], mode="clip")

    parallel_ranges(gather, n_rows, threads, chunk=4096)
    projected = None if projected is None else projected[order_R]
    lists = Lists(ordered_RD, positions_R[order_R], indptr, centroids_LD, projected)
    top = TopK.empty(n_rows, n_best)
    probes_RP = probes_RP[order_R]
    search_probes(lists, lists.rows, probes_RP[:, :1], top, threads, projected)
    offers = Offers(lists.positions, top)
    search_probes(lists, lists.rows, probes_RP[:, 1:], top, threads, projected, offers)
    out = TopK.empty(n_rows, n_best)
    out.sq_distances[order_R] = top.sq_distances
    out.positions[order_R] = top.positions
    return out
