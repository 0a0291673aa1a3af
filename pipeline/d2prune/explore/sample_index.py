"""The samples of one run in memory, for interactive search, sorting and previews of other fractions.

Reads a `FinishedRun`. Holds its numbers, a few orders of 4 bytes a sample, and what `Texts` holds.
Writes nothing; safe to share among threads. N samples.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from d2prune.d2.budget import quotas, size_of_fraction
from d2prune.d2.fixed_point import SCALE
from d2prune.errors import UserError
from d2prune.explore.numbers import read_numbers
from d2prune.explore.query import SORTS, Query, Sort
from d2prune.explore.texts import Texts
from d2prune.parts.files import DECISIONS, SAMPLES
from d2prune.runs.finished import FinishedRun

if TYPE_CHECKING:
    from d2prune.explore.clusters import Clusters

# Without a full order, the first rows up to this number are found by partial sorting.
_HEAD = 1_000
_BLOCK = 1 << 20
_SCORES = ("selection", "score", "forward", "suppression")

Positions = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class FractionPreview:
    """The selection at another fraction.

    Attributes:
        size: samples kept.
        limited: whether the fraction exceeds the samples that are ranked.
        threshold: lowest selection score kept; nan if nothing is kept.
        mean_score: of the kept samples, without the offset.
        n_added: samples kept at this fraction but not by the run.
        n_removed: samples kept by the run but not at this fraction.
        added: canonical positions of the first of `n_added`, closest to the threshold first.
        removed: likewise of `n_removed`.
    """

    size: int
    limited: bool
    threshold: float
    mean_score: float
    n_added: int
    n_removed: int
    added: Positions
    removed: Positions


@dataclass(frozen=True)
class GroupThreshold:
    """One group of a run that shares its budget among groups.

    Attributes:
        name: of the group.
        ranked: its samples that were ranked.
        kept: of these, how many a selection keeps.
        threshold: their lowest selection score; None if none is kept.
    """

    name: str
    ranked: int
    kept: int
    threshold: float | None


class SampleIndex:
    """The samples of one run; see the module's docstring."""

    def __init__(self, run: FinishedRun, texts: Texts | None = None) -> None:
        """Read the numbers of all decisions. Texts are read on first use, or by `load_texts`.

        Args:
            run: the run.
            texts: of the run's pool, if they are shared with other runs.
        """
        self.run = run
        self.texts = Texts(run.parts) if texts is None else texts
        numbers = read_numbers(run)
        self.difficulty_N, self.forward_N = numbers.difficulty_N, numbers.forward_N
        self.ranking, self.reasons, self._reason_N = numbers.ranking, numbers.reasons, numbers.reason_N
        self._order_lock = threading.Lock()
        self._clusters_lock = threading.Lock()
        self._clusters: Clusters | None = None
        self._match = lru_cache(maxsize=8)(self.texts.match)
        self._sorted = lru_cache(maxsize=2)(self._sort)
        self._found = lru_cache(maxsize=2)(self._find)
        self._at_fraction = lru_cache(maxsize=8)(self._keep)

    def __len__(self) -> int:
        return len(self.difficulty_N)

    def reason_codes(self, positions: Positions) -> NDArray[np.int8]:
        """The reasons of samples, indices into `reasons`."""
        return self._reason_N[positions]

    def counts(self, mask_N: Mask | None = None) -> dict[str, int]:
        """Samples by reason: of all of them, or of those of a mask, and then only reasons that occur."""
        reason_N = self._reason_N if mask_N is None else self._reason_N[mask_N]
        totals = np.bincount(reason_N, minlength=len(self.reasons)).tolist()
        return {name: n for name, n in zip(self.reasons, totals, strict=True) if n}

    def mean_score(self, mask_N: Mask) -> float | None:
        """Mean score of the samples of a mask, without the offset; None if there are none."""
        scores = self.difficulty_N[mask_N]
        return float(scores.mean(dtype=np.float64)) - self.run.offset if len(scores) else None

    @property
    def clusters(self) -> "Clusters":
        """The cluster of each sample; the first caller reads the embeddings, the others wait."""
        # Imports torch, which takes seconds that the first page would wait for.
        from d2prune.explore.clusters import read_clusters

        with self._clusters_lock:
            if self._clusters is None:
                self._clusters = read_clusters(self.run)
            return self._clusters

    def cluster_of(self, position: int) -> int | None:
        """The cluster of a sample; None if it was not computed, or not yet."""
        found = self._clusters
        return None if found is None or found.label_N[position] < 0 else int(found.label_N[position])

    def cluster_counts(self) -> list[tuple[int, str, int, int]]:
        """(number, name, samples, kept) of each non-empty cluster, lowest kept share first."""
        clusters = self.clusters
        labelled_N = clusters.label_N >= 0
        samples = np.bincount(clusters.label_N[labelled_N], minlength=len(clusters.names))
        kept = np.bincount(clusters.label_N[labelled_N & self.ranking.kept_N], minlength=len(clusters.names))
        rows = [
            (k, name, int(samples[k]), int(kept[k])) for k, name in enumerate(clusters.names) if samples[k]
        ]
        return sorted(rows, key=lambda row: (row[3] / row[2], row[0]))

    def load(self) -> None:
        """Sort by selection score and read texts, before the first search needs them."""
        self._order("selection")
        self.texts.load()

    def find(self, query: Query, member_N: Mask | None = None) -> NDArray[np.int32]:
        """All positions that match, sorted; ties in canonical order, reversed if ascending.

        Args:
            query: the search; its comparison and its outline are not read.
            member_N: which samples are in the comparison's set and inside the outline; None: all.
        """
        if member_N is None and not query.among and query.outline is None:
            return self._found(query)
        return self._find(query, member_N)

    def page(
        self, query: Query, start: int, limit: int, member_N: Mask | None = None
    ) -> tuple[int, Positions]:
        """The number of samples that match, and the positions of a page of them, as `find`.

        Sorts the whole pool only if a page far from the first one is asked for.
        """
        stop = start + limit
        if stop > _HEAD or self._has_order(query.sort) or query.sort in ("position", "cluster", "reason"):
            found = self.find(query, member_N)
            return len(found), found[start:stop].astype(np.int64)
        mask_N = self.filter(query, member_N)
        total = len(self) if mask_N is None else int(np.count_nonzero(mask_N))
        return total, self._head(query.sort, query.descending, mask_N, stop)[start:]

    def rows(self, positions: Positions) -> list[dict[str, Any]]:
        """What a list shows of the samples at canonical positions, in the order given."""
        fixed_N, ranked_N, kept_N = self.ranking.fixed_N, self.ranking.ranked_N, self.ranking.kept_N
        return [
            {
                "position": position,
                **texts,
                "score": float(self.difficulty_N[position]) - self.run.offset,
                "clamped": bool(self.difficulty_N[position] == 0),
                "forward": float(self.forward_N[position]),
                "selection": fixed_N[position] / SCALE if ranked_N[position] else None,
                "kept": bool(kept_N[position]),
                "reason": self.reasons[self._reason_N[position]],
            }
            for position, texts in zip(positions.tolist(), self.texts.rows(positions), strict=True)
        ]

    def kept_at(self, fraction: float) -> Mask:
        """Which samples another fraction keeps, bool [N]; groups get their shares as in the run.

        Raises:
            UserError: not in (0, 1].
        """
        wanted = size_of_fraction(len(self), fraction)
        return self._at_fraction(min(wanted, self.ranking.ranked))

    def group_thresholds(self, kept_N: Mask) -> list[GroupThreshold]:
        """The threshold of each group for a selection, largest group first; empty if there are no groups."""
        if self.run.select.params.get("groups") is None:
            return []
        group_N, _, ranked, names = self._group_ranks
        group_M, fixed_M = group_N[kept_N], self.ranking.fixed_N[kept_N]
        kept = np.bincount(group_M, minlength=len(names)).tolist()
        lowest = np.full(len(names), np.iinfo(np.int64).max)
        np.minimum.at(lowest, group_M, fixed_M)
        rows = [
            GroupThreshold(name, ranked[g], kept[g], int(lowest[g]) / SCALE if kept[g] else None)
            for g, name in enumerate(names)
        ]
        return sorted(rows, key=lambda row: -row.ranked)

    def threshold_of(self, position: int) -> float | None:
        """The lowest selection score that the run keeps: of the sample's own group, if there are groups."""
        if self.run.select.params.get("groups") is None:
            return self.ranking.threshold
        group_N = self._group_ranks[0]
        fixed_M = self.ranking.fixed_N[self.ranking.kept_N & (group_N == group_N[position])]
        return float(fixed_M.min()) / SCALE if len(fixed_M) else None

    def preview(self, fraction: float, limit: int) -> FractionPreview:
        """The selection at another fraction, from the stored ranking.

        Args:
            fraction: of the pool.
            limit: number of added and of removed samples to list.

        Raises:
            UserError: the fraction is not in (0, 1].
        """
        before_N, kept_N = self.ranking.kept_N, self.kept_at(fraction)
        size, fixed_N = int(kept_N.sum()), self.ranking.fixed_N
        added_N, removed_N = kept_N & ~before_N, before_N & ~kept_N
        return FractionPreview(
            size=size,
            limited=size_of_fraction(len(self), fraction) > size,
            threshold=float(fixed_N[kept_N].min()) / SCALE if size else float("nan"),
            mean_score=self.mean_score(kept_N) or 0.0,
            n_added=int(np.count_nonzero(added_N)),
            n_removed=int(np.count_nonzero(removed_N)),
            # Added samples were below the run's threshold, so its closest are the highest; removed
            # ones were above it, so its closest are the lowest.
            added=self._head("selection", True, added_N, limit),
            removed=self._head("selection", False, removed_N, limit),
        )

    def filter(self, query: Query, member_N: Mask | None) -> Mask | None:
        """Which samples match, in no order; None: all. Arguments are those of `find`."""
        mask_N: Mask | None = member_N
        for found_N in self._filter_masks(query):
            mask_N = found_N if mask_N is None else mask_N & found_N
        return mask_N

    def _filter_masks(self, query: Query) -> Iterator[Mask]:
        if query.reason:
            code = self.reasons.index(query.reason) if query.reason in self.reasons else -1
            yield self._reason_N == code
        if query.cluster is not None:
            yield self.clusters.label_N == query.cluster
        score_N = self.difficulty_N
        # Beyond the range of float32 a limit is infinite.
        with np.errstate(over="ignore"):
            low, high = (
                None if x is None else np.float32(x + self.run.offset) for x in (query.low, query.high)
            )
        if low is not None:
            yield score_N >= low
        if high is not None:
            yield score_N <= high
        if query.words:
            yield self._match(query.words)

    def _find(self, query: Query, member_N: Mask | None = None) -> NDArray[np.int32]:
        mask_N = self.filter(query, member_N)
        if mask_N is not None and query.sort in _SCORES and not self._has_order(query.sort):
            row_M = np.flatnonzero(mask_N).astype(np.int32)
            if len(row_M) * 2 < len(self):
                # Sorting all of them, for later lists, takes longer than this one may.
                found_M = row_M[np.argsort(self._keys(query.sort)[row_M], kind="stable")]
                return found_M if query.descending else found_M[::-1]
        order_N = self._order(query.sort)
        if not query.descending:
            order_N = order_N[::-1]
        return order_N if mask_N is None else order_N[mask_N[order_N]]

    def _keep(self, size: int) -> Mask:
        """Which samples a budget of `size` keeps, bool [N]."""
        if self.run.select.params.get("groups") is None:
            kept_N = np.zeros(len(self), bool)
            kept_N[self._order("selection")[:size]] = True
            return kept_N
        group_N, rank_N, sizes, _ = self._group_ranks
        share = np.asarray(quotas(sizes, size), np.int64)
        return np.asarray(self.ranking.ranked_N & (rank_N < share[group_N]))

    @cached_property
    def _group_ranks(self) -> tuple[NDArray[np.int32], NDArray[np.int32], list[int], list[str]]:
        """Group of each sample, its rank in the group from 0, ranked samples per group, names of groups.

        Samples that are not ranked come after all that are.
        """
        order_N = self._order("selection")
        rank_N = np.empty(len(self), np.int32)
        groups = str(self.run.select.params["groups"])
        table = DECISIONS if groups == "shard" else SAMPLES
        labels = self.run.parts.column(table, groups).combine_chunks().dictionary_encode()
        code_N = labels.indices.fill_null(-1).to_numpy().astype(np.int32)
        # As in the select stage: groups in the order of their labels, which decides who gets a remainder
        # when remainders are equal.
        names = np.asarray(labels.dictionary.to_pylist(), np.str_)
        code_N = np.argsort(np.argsort(names, kind="stable"), kind="stable").astype(np.int32)[code_N]
        ranked_N = self.ranking.ranked_N
        by_group = order_N[np.argsort(code_N[order_N], kind="stable")]
        ends = np.bincount(code_N, minlength=len(names))
        rank_N[by_group] = np.arange(len(self)) - np.repeat(np.cumsum(ends) - ends, ends)
        counts = np.bincount(code_N[ranked_N], minlength=len(names)).tolist()
        return code_N, rank_N, counts, np.sort(names).tolist()

    def _has_order(self, sort: Sort) -> bool:
        return sort == "selection" and "_selection_order" in self.__dict__

    def _order(self, sort: Sort) -> NDArray[np.int32]:
        """Positions in descending order of a column; the first caller sorts, the others wait."""
        if sort == "cluster":
            # Waits for the embeddings to be read, and nothing else must wait with it.
            self.clusters  # noqa: B018
        with self._order_lock:
            return self._selection_order if sort == "selection" else self._sorted(sort)

    @cached_property
    def _selection_order(self) -> NDArray[np.int32]:
        return np.argsort(self._keys("selection"), kind="stable").astype(np.int32)

    def _sort(self, sort: Sort) -> NDArray[np.int32]:
        if sort == "position":
            return np.arange(len(self), dtype=np.int32)[::-1]
        if sort in ("cluster", "reason"):
            order_N = self._selection_order
            # Unsigned, so that samples without a cluster (-1) come last.
            label_N = self.clusters.label_N.astype(np.uint16) if sort == "cluster" else self._reason_N
            return order_N[np.argsort(label_N[order_N], kind="stable")]
        return np.argsort(self._keys(sort), kind="stable").astype(np.int32)

    def _keys(self, sort: Sort, rows: slice = slice(None)) -> NDArray[Any]:
        """What to sort some samples by, the lowest first: the column's negative."""
        fixed_N = self.ranking.fixed_N
        keys: dict[str, Callable[[], NDArray[Any]]] = {
            # ~x reverses the order and cannot overflow.
            "selection": lambda: np.where(
                self.ranking.ranked_N[rows], ~fixed_N[rows], np.iinfo(np.int64).max
            ),
            "score": lambda: -self.difficulty_N[rows],
            "forward": lambda: -self.forward_N[rows],
            "suppression": lambda: fixed_N[rows] / SCALE - self.forward_N[rows],
        }
        if sort not in keys:
            raise UserError(f"sort: found {sort!r}; expected one of {', '.join(SORTS)}")
        return keys[sort]()

    def _head(self, sort: Sort, descending: bool, mask_N: Mask | None, stop: int) -> Positions:
        """The first samples of a mask (None: of all) in an order, without sorting all of them."""
        best_M, best_key_M = np.zeros(0, np.int64), self._keys(sort, slice(0, 0))
        # In blocks, as temporary arrays of a large pool would take more memory than the pool.
        starts = range(0, len(self), _BLOCK)
        for start in starts if descending else reversed(starts):
            rows = slice(start, start + _BLOCK)
            key_M = self._keys(sort, rows)
            row_M = np.arange(len(key_M)) if mask_N is None else np.flatnonzero(mask_N[rows])
            if not descending:
                # Ties, too, are in reverse.
                row_M = row_M[::-1]
                key_M = ~key_M if sort == "selection" else -key_M
            key_M = np.concatenate([best_key_M, key_M[row_M]])
            position_M = np.concatenate([best_M, row_M + start])
            if stop < len(key_M):
                # All that are as low as the last one wanted, so that ties are cut in their order.
                first = np.flatnonzero(key_M <= np.partition(key_M, stop)[stop])
                position_M, key_M = position_M[first], key_M[first]
            first = np.argsort(key_M, kind="stable")[:stop]
            best_M, best_key_M = position_M[first], key_M[first]
        return best_M
