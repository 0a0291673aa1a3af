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
from d2prune.knn.backend import fit_projection, search_probes, search_rows, searches_on_cpu
from d2prune.knn.block_search import Members, TopK, search_block
from d2prune.knn.lists import Lists
from d2prune.knn.projections import ProjectedRows, Projection

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

# 100,000 x 512 rows in 632 lists reach recall 0.95 with 14 probes after 4 iterations, 13 after 8
# (40 rows a list), and 12 after faiss's default (10 on 256 rows a list), which takes 7 to 15 times
# the training. Lists are scanned only once, so longer training does not pay.
TRAINING_ROWS_PER_LIST = 32
ITERATIONS = 4
FLAT_LISTS = 65_536
UPPER_PROBES = 32
# Rows searched at a time where centroids have two levels.
_BLOCK = 262_144


def default_nlist(n_rows: int) -> int:
    """Return the number of lists for a pool.

    faiss's "Guidelines to choose an index" (4 to 16 sqrt(N), then 65,536 and more from 1,000,000
    rows) assume few queries. Here every row is a query: finding its lists takes N x nlist products,
    and searching them takes as many at about 3 sqrt(N) lists. The sizes of the guidelines apply
    again where centroids have two levels.

    Args:
        n_rows: N.

    Returns:
        3 sqrt(N), at most N, below 100 million rows; 262,144 below a billion; then 1,048,576.
    """
    if n_rows < 100_000_000:
        return max(1, min(round(3 * math.sqrt(n_rows)), n_rows))
    return 262_144 if n_rows < 1_000_000_000 else 1_048_576


def training_sample(n_rows: int, nlist: int, seed: int) -> Int64:
    """Return which rows of the pool train the quantiser.

    Args:
        n_rows: N.
        nlist: number of lists.
        seed: any int >= 0.

    Returns:
        int64 [S], distinct, ascending, so that one pass over the pool collects them.
    """
    size = min(n_rows, TRAINING_ROWS_PER_LIST * nlist)
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

    Up to FLAT_LISTS lists, a row is compared with every centroid. Beyond that, centroids have two
    levels: they are themselves kept in about sqrt(L) lists, and a row searches the UPPER_PROBES
    nearest of those. At 262,144 lists this takes 16 times fewer products, still as matrix products.
    (An HNSW over the centroids computes distances one by one, and its path depends on how the
    machine rounds them.)
    """

    def __init__(
        self, centroids_LD: Float32, flat_lists: int = FLAT_LISTS, projection: Projection | None = None
    ) -> None:
        """Prepare the search.

        Args:
            centroids_LD: float32 [L, D], contiguous.
            flat_lists: largest number of lists for which all are compared; decides a row's lists.
            projection: of the projections that `nearest` will be given; None: `nearest` fits one if
                that pays.
        """
        self.centroids = centroids_LD
        self._upper: Quantiser | None = None
        nlist = len(centroids_LD)
        if nlist <= flat_lists:
            self._members = Members.prepare(centroids_LD, np.arange(nlist))
            self._projected = None if projection is None else self._prepare_projected(projection)
            return
        n_upper = round(math.sqrt(nlist))
        sample = training_sample(nlist, n_upper, seed=0)
        self._upper = Quantiser(train(centroids_LD[sample], n_upper, seed=0), flat_lists=n_upper)
        home = self._upper.nearest(centroids_LD, 1).positions[:, 0]
        order = np.argsort(home, kind="stable")
        indptr = np.zeros(n_upper + 1, np.int64)
        np.cumsum(np.bincount(home, minlength=n_upper), out=indptr[1:])
        self._lists = Lists(centroids_LD[order], order, indptr, self._upper.centroids)

    def nearest(
        self, rows_ND: Float32, nprobe: int, threads: int = 1, projected: ProjectedRows | None = None
    ) -> TopK:
        """Return the lists each row visits, nearest first; the first is its home list.

        Args:
            rows_ND: float32 [N, D], contiguous.
            nprobe: P <= L.
            threads: workers; changes speed only.
            projected: projections of the rows, by this quantiser's projection; changes speed only.

        Returns:
            [N, P]; positions are list numbers. With two levels, NO_POSITION where none was found.
        """
        top = TopK.empty(len(rows_ND), nprobe)
        if self._upper is not None:
            n_probes = min(UPPER_PROBES, len(self._upper.centroids))
            for start in range(0, len(rows_ND), _BLOCK):
                block = slice(start, start + _BLOCK)
                upper_BP = self._upper.nearest(rows_ND[block], n_probes, threads).positions.astype(np.int32)
                part = TopK(top.sq_distances[block], top.positions[block])
                search_probes(self._lists, rows_ND[block], upper_BP, part, threads)
            return top
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
