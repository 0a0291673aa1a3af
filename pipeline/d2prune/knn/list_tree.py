"""Finds the lists a row visits without comparing it with all of them: many lists in two levels.

Reads centroids and unit rows; returns list numbers. A row goes to the nearest of about 4 sqrt(L)
*cells*; each cell has the lists nearest to its centre as candidates. The home list is the nearest of
the first 5 sqrt(L) of them, the other lists visited are the nearest of the first 12 sqrt(L). Near is
meant by int8 codes (`codes`). Invariant: a row's lists depend on that row and the centroids alone.

At a million rows in 10,000 lists, a row is compared with 1,600 codes instead of 10,000 centroids, and
recall 0.95 takes 30 probes. With 2,400 codes it takes 29, and 40 % more time.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.compiled.threads import parallel_ranges
from d2prune.knn.codes import Int8, encode, multiply_codes

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

# In units of sqrt(L).
_CELLS, _HOME_CANDIDATES, _CANDIDATES = 4, 5, 12
# A row that visits many lists needs more candidates. Recall is tuned in steps of twice as many
# probes; within a step, candidates do not depend on nprobe, so fewer probes are the first of more.
_CANDIDATES_PER_PROBE = 24
FIRST_STEP = 32
# Rows multiplied at a time; scores of 1,024 x 2,000 lists take 8 MB.
_TILE = 1_024
_STRIP = 64
_CHUNK = 131_072


def count_cells(nlist: int) -> int:
    """Return the number of cells for `nlist` lists."""
    return max(1, min(nlist, round(_CELLS * math.sqrt(nlist))))


def count_candidates(nlist: int, nprobe: int) -> int:
    """Return how many lists a row is compared with, besides the cells."""
    step = FIRST_STEP
    while step < nprobe:
        step *= 2
    return min(nlist, max(round(_CANDIDATES * math.sqrt(nlist)), _CANDIDATES_PER_PROBE * step))


class ListTree:
    """Lists in two levels."""

    def __init__(self, centroids_LD: Float32, cells_CD: Float32) -> None:
        """Encode the centroids.

        Args:
            centroids_LD: float32 [L, D], contiguous.
            cells_CD: float32 [C, D], contiguous, centres of the cells.
        """
        self._lists, self._cells = _Codes.of(centroids_LD), _Codes.of(cells_CD)
        self._n_home = min(len(centroids_LD), round(_HOME_CANDIDATES * math.sqrt(len(centroids_LD))))
        self._candidates_CB: Int32 = np.empty((len(cells_CD), 0), np.int32)

    def find_lists(self, rows_ND: Float32, nprobe: int, threads: int = 1) -> Int32:
        """Return the lists each row visits.

        Args:
            rows_ND: float32 [N, D], contiguous, of unit norm.
            nprobe: P <= L.
            threads: workers; changes speed only.

        Returns:
            int32 [N, P], home list first, the others nearest first.
        """
        nlist = len(self._lists.values)
        candidates_CB = self._find_candidates(
            self._n_home if nprobe == 1 else count_candidates(nlist, nprobe), threads
        )
        out_NP = np.empty((len(rows_ND), nprobe), np.int32)

        def find_range(start: int, stop: int) -> None:
            codes_ND = encode(rows_ND[start:stop])
            cell_N = np.empty(len(codes_ND), np.int32)
            for low in range(0, len(codes_ND), _TILE):
                products = multiply_codes(codes_ND[low : low + _TILE], self._cells.values)
                _find_nearest(products, self._cells.sq_norms, cell_N[low : low + _TILE])
            order_N = np.argsort(cell_N, kind="stable")
            indptr = np.searchsorted(cell_N[order_N], np.arange(len(self._cells.values) + 1))
            for cell in np.flatnonzero(np.diff(indptr)).tolist():
                candidates_B = candidates_CB[cell]
                codes_BD, sq_norms_B = self._lists.values[candidates_B], self._lists.sq_norms[candidates_B]
                for low in range(indptr[cell], indptr[cell + 1], _TILE):
                    rows = order_N[low : min(low + _TILE, indptr[cell + 1])]
                    products = multiply_codes(codes_ND[rows], codes_BD)
                    _pick_lists(products, sq_norms_B, candidates_B, self._n_home, rows + start, out_NP)

        parallel_ranges(find_range, len(rows_ND), threads, _CHUNK)
        return out_NP

    def _find_candidates(self, n_candidates: int, threads: int) -> Int32:
        """Return the lists nearest to each cell's centre, int32 [C, B], nearest first."""
        if self._candidates_CB.shape[1] < n_candidates:
            candidates_CB = np.empty((len(self._cells.values), n_candidates), np.int32)

            def find_range(start: int, stop: int) -> None:
                products = multiply_codes(self._cells.values[start:stop], self._lists.values)
                scores = self._lists.sq_norms - 2 * products
                # Ties go to the lower list: the number is part of the key.
                keys = scores.astype(np.int64) * len(self._lists.values) + np.arange(scores.shape[1])
                if n_candidates < keys.shape[1]:
                    keys = np.partition(keys, n_candidates - 1, axis=1)[:, :n_candidates]
                candidates_CB[start:stop] = np.sort(keys, axis=1) % len(self._lists.values)

            parallel_ranges(find_range, len(candidates_CB), threads, chunk=32)
            self._candidates_CB = candidates_CB
        return self._candidates_CB[:, :n_candidates]


class _Codes:
    """Codes and their squared norms."""

    def __init__(self, values: Int8, sq_norms: Int32) -> None:
        self.values, self.sq_norms = values, sq_norms

    @classmethod
    def of(cls, rows_ND: Float32) -> _Codes:
        values = encode(rows_ND)
        return cls(values, np.square(values, dtype=np.int32).sum(axis=1, dtype=np.int32))


@kernel
def _find_nearest(products_QB: Int32, sq_norms_B: Int32, nearest_Q: Int32) -> None:
    for q in range(nearest_Q.shape[0]):
        best, score = 0, sq_norms_B[0] - 2 * products_QB[q, 0]
        for b in range(1, sq_norms_B.shape[0]):
            other = sq_norms_B[b] - 2 * products_QB[q, b]
            if other < score:
                best, score = b, other
        nearest_Q[q] = best


@kernel
def _pick_lists(
    products_QB: Int32, sq_norms_B: Int32, lists_B: Int32, n_home: int, rows_Q: Int64, out_NP: Int32
) -> None:
    """Write each row's lists: the nearest of the first `n_home`, then the nearest of all others."""
    n_candidates, n_others = lists_B.shape[0], out_NP.shape[1] - 1
    score_B = np.empty(n_candidates, np.int32)
    best_P, number_P = np.empty(n_others, np.int32), np.empty(n_others, np.int32)
    largest = np.int32(np.iinfo(np.int32).max)
    for q in range(rows_Q.shape[0]):
        for b in range(n_candidates):
            score_B[b] = sq_norms_B[b] - np.int32(2) * products_QB[q, b]
        least = largest
        for b in range(n_home):
            least = min(least, score_B[b])
        home = 0
        while score_B[home] != least:
            home += 1
        out_NP[rows_Q[q], 0] = lists_B[home]
        if n_others == 0:
            continue
        score_B[home] = largest
        best_P[:] = largest
        for start in range(0, n_candidates, _STRIP):
            stop = min(start + _STRIP, n_candidates)
            worst, nearer = best_P[n_others - 1], 0
            for b in range(start, stop):
                nearer += score_B[b] < worst
            if nearer == 0:
                continue
            for b in range(start, stop):
                score = score_B[b]
                if score < best_P[n_others - 1]:
                    slot = n_others - 1
                    while slot > 0 and score < best_P[slot - 1]:
                        best_P[slot], number_P[slot] = best_P[slot - 1], number_P[slot - 1]
                        slot -= 1
                    best_P[slot], number_P[slot] = score, b
        for p in range(n_others):
            out_NP[rows_Q[q], p + 1] = lists_B[number_P[p]]
