"""The coarse quantiser: centroids by k-means on a seeded sample, and the lists nearest to each row.

Reads float32 rows; returns float32 centroids [L, D], trained once per graph, and lists in ascending
(canonical distance, list number). Invariant: both are defined by canonical distances, so they do
not depend on batch, threads, BLAS or instruction set. faiss's k-means and quantisers do: their
float32 products may round differently on another CPU or for another batch shape, and one row that
changes its list changes the graph.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.compiled.threads import parallel_ranges
from d2prune.errors import ArgumentError
from d2prune.knn.backend import fit_projection, search_rows, searches_on_cpu
from d2prune.knn.block_search import Members, search_block
from d2prune.knn.distances import pair_sq_distances
from d2prune.knn.list_tree import ListTree, count_cells
from d2prune.knn.projections import ProjectedRows, Projection
from d2prune.knn.top_k import TopK

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

# 100,000 x 512 rows in 632 lists reach recall 0.95 with 14 probes after 4 iterations, 13 after 8
# (40 rows a list), and 12 after faiss's default (10 on 256 rows a list), which takes 7 to 15 times
# the training. Lists are scanned only once, so longer training does not pay.
TRAINING_ROWS_PER_LIST = 32
# Small lists are trained on fewer: with 32, a million rows in 10,000 lists need 45 probes, not 47.
TRAINING_ROWS_PER_SMALL_LIST = 16
ITERATIONS = 4
FLAT_LISTS = 1_024
_CELL_ITERATIONS = 2
# Pools from this size on have a list for every 100 rows; with 64, time was the same.
_SMALL_LISTS_FROM, _ROWS_PER_LIST, _MANY_ROWS, _MOST_LISTS = 100_000, 100, 1_000_000, 2**20


def default_nlist(n_rows: int) -> int:
    """Return the number of lists for a pool.

    faiss's "Guidelines to choose an index" (4 to 16 sqrt(N), then 65,536 and more from 1,000,000
    rows) assume few queries. Here every row is a query. Finding its lists takes nlist products where
    all lists are compared, and searching them as many at about 3 sqrt(N) lists. Where lists have two
    levels, many small ones pay: fewer pairs are compared at the same recall. Beyond a million rows,
    lists grow with N^(2/3), because centroids and training rows must fit in memory.

    Args:
        n_rows: N.

    Returns:
        3 sqrt(N), at most N, below 100,000 rows; N / 100 up to a million; at most 1,048,576.
    """
    if n_rows < _SMALL_LISTS_FROM:
        return max(1, min(round(3 * math.sqrt(n_rows)), n_rows))
    small = min(n_rows, _MANY_ROWS)
    return min(_MOST_LISTS, round(small / _ROWS_PER_LIST * math.pow(n_rows / small, 2 / 3)))


def training_sample(n_rows: int, nlist: int, seed: int) -> Int64:
    """Return which rows of the pool train the quantiser.

    Args:
        n_rows: N.
        nlist: number of lists.
        seed: any int >= 0.

    Returns:
        int64 [S], distinct, ascending, so that one pass over the pool collects them.
    """
    per_list = TRAINING_ROWS_PER_LIST if nlist <= FLAT_LISTS else TRAINING_ROWS_PER_SMALL_LIST
    size = min(n_rows, per_list * nlist)
    return np.sort(np.random.default_rng(seed).choice(n_rows, size, replace=False))


def train(
    sample_SD: Float32, nlist: int, seed: int, n_iterations: int = ITERATIONS, threads: int = 1
) -> Float32:
    """Train centroids with Lloyd's k-means.

    Args:
        sample_SD: float32 [S, D], contiguous; S >= nlist.
        nlist: L.
        seed: chooses the first centroids among the rows.
        n_iterations: alternations of assignment and mean.
        threads: workers; changes speed only.

    Returns:
        float32 [L, D]. Means are float64 sums in row order, rounded once.

    Raises:
        ArgumentError: fewer rows than lists.
    """
    if len(sample_SD) < nlist:
        raise ArgumentError(
            f"nlist {nlist}: found {len(sample_SD)} rows to train on; expected at least {nlist}"
        )
    rng = np.random.default_rng(seed)
    centroids_LD = sample_SD[np.sort(rng.choice(len(sample_SD), nlist, replace=False))].copy()
    projection = None
    if nlist <= FLAT_LISTS:
        projection = fit_projection(sample_SD, len(sample_SD), n_iterations * len(sample_SD) * nlist)
    projected = None if projection is None else projection.project(sample_SD, threads)
    for _ in range(n_iterations):
        nearest = Quantiser(centroids_LD, projection=projection).nearest(sample_SD, 1, threads, projected)
        labels_S = nearest.positions[:, 0]
        centroids_LD = _average_lists(sample_SD, labels_S, centroids_LD)
        _refill_empty_lists(sample_SD, labels_S, nearest.sq_distances[:, 0], centroids_LD)
    return centroids_LD


class Quantiser:
    """Finds the lists nearest to rows; built from the centroids alone, so only those are stored.

    Up to FLAT_LISTS lists, a row is compared with every centroid, by canonical distance. Beyond that,
    lists have two levels (`list_tree`), still searched by matrix products. (An HNSW over the centroids
    computes distances one by one, and its path depends on how the machine rounds them.)
    """

    def __init__(
        self, centroids_LD: Float32, flat_lists: int | None = None, projection: Projection | None = None
    ) -> None:
        """Prepare the search.

        Args:
            centroids_LD: float32 [L, D], contiguous.
            flat_lists: largest number of lists for which all are compared; None: FLAT_LISTS. Decides a
                row's lists.
            projection: of the projections that `nearest` will be given; None: `nearest` fits one if
                that pays.
        """
        self.centroids = centroids_LD
        self._tree: ListTree | None = None
        nlist = len(centroids_LD)
        if nlist > (FLAT_LISTS if flat_lists is None else flat_lists):
            n_cells = count_cells(nlist)
            sample = training_sample(nlist, n_cells, seed=0)
            self._tree = ListTree(centroids_LD, train(centroids_LD[sample], n_cells, 0, _CELL_ITERATIONS))
            return
        self._members = Members.prepare(centroids_LD, np.arange(nlist))
        self._projected = None if projection is None else self._prepare_projected(projection)

    def find_lists(
        self, rows_ND: Float32, nprobe: int, threads: int = 1, projected: ProjectedRows | None = None
    ) -> Int32:
        """Return the numbers of the lists each row visits: its home list, then the others, nearest first.

        Args:
            rows_ND: float32 [N, D], contiguous, of unit norm.
            nprobe: P <= L. Fewer probes are the first of more; with more than FLAT_LISTS lists, only
                within a step of `list_tree.count_candidates`, up to 64, 256, 1,024 probes and so on.
            threads: workers; changes speed only.
            projected: projections of the rows, by this quantiser's projection; changes speed only.

        Returns:
            int32 [N, P].
        """
        if self._tree is not None:
            return self._tree.find_lists(rows_ND, nprobe, threads)
        return self.nearest(rows_ND, nprobe, threads, projected).positions.astype(np.int32)

    def nearest(
        self, rows_ND: Float32, nprobe: int, threads: int = 1, projected: ProjectedRows | None = None
    ) -> TopK:
        """Return the lists each row visits, with distances; the first is its home list.

        Args:
            rows_ND: float32 [N, D], contiguous.
            nprobe: P <= L.
            threads: workers; changes speed only.
            projected: projections of the rows, by this quantiser's projection; changes speed only.

        Returns:
            [N, P]; positions are list numbers. Distances ascend if lists have one level.
        """
        if self._tree is not None:
            lists_NP = self._tree.find_lists(rows_ND, nprobe, threads).astype(np.int64)
            row_E = np.repeat(np.arange(len(rows_ND)), nprobe)
            sq_distances = pair_sq_distances(rows_ND, row_E, self.centroids, lists_NP.ravel())
            return TopK(sq_distances.reshape(lists_NP.shape), lists_NP)
        top = TopK.empty(len(rows_ND), nprobe)
        if not searches_on_cpu(rows_ND.shape[1]):
            search_rows(self.centroids, np.arange(len(self.centroids)), rows_ND, top, threads)
            return top
        projection, members = self._members_for(len(rows_ND))
        if projection is not None and projected is None:
            projected = projection.project(rows_ND, threads)
        parallel_ranges(
            lambda start, stop: search_block(rows_ND, np.arange(start, stop), members, top, projected),
            len(rows_ND),
            threads,
        )
        return top

    def _members_for(self, n_rows: int) -> tuple[Projection | None, Members]:
        """Return the centroids prepared for comparing `n_rows` rows, and the projection if they use one."""
        if self._projected is None:
            nlist = len(self.centroids)
            projection = fit_projection(self.centroids, n_rows + nlist, n_rows * nlist)
            if projection is None:
                return None, self._members
            self._projected = self._prepare_projected(projection)
        return self._projected

    def _prepare_projected(self, projection: Projection) -> tuple[Projection, Members]:
        positions, projected = np.arange(len(self.centroids)), projection.project(self.centroids)
        return projection, Members.prepare(self.centroids, positions, projected=projected)


def _refill_empty_lists(
    sample_SD: Float32, labels_S: Int64, sq_distances_S: Float32, centroids_LD: Float32
) -> None:
    """Move the centroids of empty lists to the rows farthest from theirs; ties to the lowest row."""
    empty = np.flatnonzero(np.bincount(labels_S, minlength=len(centroids_LD)) == 0)
    worst = np.argsort(-sq_distances_S, kind="stable")[: len(empty)]
    centroids_LD[empty] = sample_SD[worst]


@kernel
def _average_lists(rows_ND: Float32, labels_N: Int64, centroids_LD: Float32) -> Float32:
    """Return each list's mean, summed in row order in float64; an empty list keeps its centroid."""
    sums_LD = np.zeros(centroids_LD.shape, np.float64)
    counts_L = np.zeros(centroids_LD.shape[0], np.int64)
    for n in range(rows_ND.shape[0]):
        label = labels_N[n]
        counts_L[label] += 1
        for d in range(rows_ND.shape[1]):
            sums_LD[label, d] += np.float64(rows_ND[n, d])
    out_LD = centroids_LD.copy()
    for label in range(out_LD.shape[0]):
        if counts_L[label] > 0:
            for d in range(out_LD.shape[1]):
                out_LD[label, d] = np.float32(sums_LD[label, d] / counts_L[label])
    return out_LD
