"""The pool as columns in memory, for interactive search, sorting and previews of other fractions.

Reads the decisions of a `FinishedRun`: about 40 bytes per sample for numbers, and also captions and
names if they take less than `TEXT_LIMIT` (otherwise every search reads them again). Writes nothing;
safe to share among threads. N samples.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from d2prune.d2.budget import quotas, ranking, size_of_fraction
from d2prune.d2.fixed_point import SCALE
from d2prune.errors import UserError
from d2prune.explore.explain import Ranking
from d2prune.inputs.sample_id import normal_uid
from d2prune.parts.files import DECISIONS, SAMPLES
from d2prune.runs.finished import FinishedRun

if TYPE_CHECKING:
    from d2prune.explore.clusters import Clusters

TEXT_LIMIT = 1 << 30
_NUMBERS = ("difficulty", "forward_score", "selection_fixed", "kept", "reason")
_TEXTS = ("uid", "key", "caption")
# Captions and hexadecimal uids in memory take about this many times their bytes as zstd.
_COMPRESSION_RATIO = 2
_THREADS = 4

Positions = NDArray[np.int64]
Sort = Literal["position", "selection", "score", "forward", "suppression", "cluster", "reason"]


@dataclass(frozen=True)
class Query:
    """A search.

    Attributes:
        text: the beginning of a uid, a key, or part of a caption, in upper or lower case; empty: all.
        reason: a reason of the decisions, such as `below-budget`; empty: all.
        cluster: number of a cluster; None: all.
        low: lowest score, without its offset; None: no limit.
        high: highest score; None: no limit.
        sort: by canonical position, selection score, score, forward score or suppression received;
            by cluster or reason, and within one by selection score.
        descending: highest first.
    """

    text: str = ""
    reason: str = ""
    cluster: int | None = None
    low: float | None = None
    high: float | None = None
    sort: Sort = "selection"
    descending: bool = True


@dataclass(frozen=True)
class FractionPreview:
    """The selection at another fraction.

    Attributes:
        size: samples kept.
        limited: whether the fraction exceeds the samples that are ranked.
        threshold: lowest selection score kept; nan if nothing is kept.
        mean_score: of the kept samples, without the offset.
        added: positions kept at this fraction but not by the run, closest to the threshold first.
        removed: positions kept by the run but not at this fraction, in the same order.
    """

    size: int
    limited: bool
    threshold: float
    mean_score: float
    added: Positions
    removed: Positions


class SampleIndex:
    """The columns of one run; see the module's docstring."""

    def __init__(self, run: FinishedRun, text_limit: int = TEXT_LIMIT) -> None:
        """Read the numbers of all decisions. Texts are read on first use, or by `load_texts`."""
        self.run = run
        table = pa.concat_tables(run.parts.peek_all(DECISIONS, _NUMBERS))
        reason = table["reason"].combine_chunks().dictionary_encode()
        self.reasons: tuple[str, ...] = tuple(reason.dictionary.to_pylist())
        self._reason_N = reason.indices.to_numpy().astype(np.int8)
        self.difficulty_N = table["difficulty"].to_numpy()
        self.forward_N = table["forward_score"].to_numpy()
        self.ranking = Ranking.of_table(table)
        stored = sum(file.size for unit in run.embed.units for file in unit.files if file.name == SAMPLES)
        self._keep_texts = stored * _COMPRESSION_RATIO <= text_limit
        self._texts: dict[int, pa.Table] = {}
        self._lock = threading.Lock()
        self._clusters_lock = threading.Lock()
        self._clusters: Clusters | None = None
        self._matches = lru_cache(maxsize=8)(self._match_text)
        self._orders = lru_cache(maxsize=None)(self._sort)

    def __len__(self) -> int:
        return len(self.difficulty_N)

    def counts(self) -> dict[str, int]:
        """Samples by reason."""
        return {name: int((self._reason_N == code).sum()) for code, name in enumerate(self.reasons)}

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

    def load_texts(self) -> None:
        """Read captions and names, and sort by selection score, before the first search needs them."""
        self._orders("selection")
        if self._keep_texts:
            with ThreadPoolExecutor(_THREADS) as pool:
                list(pool.map(self._read_text, range(len(self.run.embed.units))))

    def find(self, query: Query) -> Positions:
        """All positions that match, sorted; ties in canonical order, reversed if ascending."""
        order_N = self._orders(query.sort)
        if not query.descending:
            order_N = order_N[::-1]
        mask_N: NDArray[np.bool_] | None = None
        for found_N in self._filter_masks(query):
            mask_N = found_N if mask_N is None else mask_N & found_N
        return order_N if mask_N is None else order_N[mask_N[order_N]]

    def _filter_masks(self, query: Query) -> Iterator[NDArray[np.bool_]]:
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
        if query.text.strip():
            yield self._matches(query.text.strip())

    def rows(self, positions: Positions) -> list[dict[str, Any]]:
        """What a list shows of the samples at canonical positions, in the order given."""
        texts: dict[int, dict[str, Any]] = {}
        for part, index_M, row_M in self.run.parts.spans.by_part(positions):
            found = self._read_text(part).take(row_M).to_pylist()
            texts.update(zip(index_M.tolist(), found, strict=True))
        return [
            {
                "position": position,
                **texts[index],
                "score": float(self.difficulty_N[position]) - self.run.offset,
                "clamped": bool(self.difficulty_N[position] == 0),
                "forward": float(self.forward_N[position]),
                "selection": self.ranking.fixed_N[position] / SCALE
                if self.ranking.ranked_N[position]
                else None,
                "kept": bool(self.ranking.kept_N[position]),
                "reason": self.reasons[self._reason_N[position]],
            }
            for index, position in enumerate(positions.tolist())
        ]

    def preview(self, fraction: float) -> FractionPreview:
        """The selection at another fraction, from the stored ranking; groups get their shares as in the run.

        Raises:
            UserError: not in (0, 1].
        """
        before_N, ranked = self.ranking.kept_N, int(self.ranking.ranked_N.sum())
        wanted = size_of_fraction(len(self), fraction)
        size = min(wanted, ranked)
        kept_N = self._keep(size)
        fixed_N = self.ranking.fixed_N
        added, removed = np.flatnonzero(kept_N & ~before_N), np.flatnonzero(before_N & ~kept_N)
        mean = float(self.difficulty_N[kept_N].mean(dtype=np.float64)) - self.run.offset if size else 0.0
        return FractionPreview(
            size=size,
            limited=wanted > ranked,
            threshold=float(fixed_N[kept_N].min()) / SCALE if size else float("nan"),
            mean_score=mean,
            # Added samples were below the run's threshold, so its closest are the highest; removed
            # ones were above it, so its closest are the lowest.
            added=added[np.argsort(~fixed_N[added], kind="stable")],
            removed=removed[np.argsort(fixed_N[removed], kind="stable")],
        )

    def _keep(self, size: int) -> NDArray[np.bool_]:
        """Which samples a budget of `size` keeps, bool [N]."""
        group_N, rank_N, sizes = self._group_ranks
        if group_N is None:
            return rank_N < size
        share = np.asarray(quotas(sizes, size), np.int64)
        kept_N: NDArray[np.bool_] = self.ranking.ranked_N & (rank_N < share[group_N])
        return kept_N

    @cached_property
    def _group_ranks(self) -> tuple[NDArray[np.int32] | None, NDArray[np.int32], list[int]]:
        """Group of each sample (None: no groups), its rank in the group from 0, and ranked samples per group.

        Samples that are not ranked come after all that are.
        """
        order_N = self._orders("selection")
        rank_N = np.empty(len(self), np.int32)
        groups = self.run.select.params.get("groups")
        if groups is None:
            rank_N[order_N] = np.arange(len(self), dtype=np.int32)
            return None, rank_N, []
        table = DECISIONS if groups == "shard" else SAMPLES
        labels = self.run.parts.column(table, str(groups)).combine_chunks().dictionary_encode()
        code_N = labels.indices.fill_null(-1).to_numpy().astype(np.int32)
        # As in the select stage: groups in the order of their labels, which decides who gets a remainder
        # when remainders are equal.
        names = np.asarray(labels.dictionary.to_pylist(), np.str_)
        code_N = np.argsort(np.argsort(names, kind="stable"), kind="stable").astype(np.int32)[code_N]
        ranked_N = self.ranking.ranked_N
        by_group = order_N[np.argsort(code_N[order_N], kind="stable")]
        ends = np.bincount(code_N, minlength=len(names))
        rank_N[by_group] = np.arange(len(self)) - np.repeat(np.cumsum(ends) - ends, ends)
        return code_N, rank_N, np.bincount(code_N[ranked_N], minlength=len(names)).tolist()

    def _sort(self, sort: Sort) -> Positions:
        """Positions in descending order of a column."""
        if sort == "position":
            return np.arange(len(self))[::-1]
        fixed_N = self.ranking.fixed_N
        if sort == "selection":
            order_N = ranking(fixed_N)
            ranked_N = self.ranking.ranked_N[order_N]
            return np.concatenate([order_N[ranked_N], order_N[~ranked_N]])
        if sort in ("cluster", "reason"):
            order_N = self._orders("selection")
            # Unsigned, so that samples without a cluster (-1) come last.
            label_N = self.clusters.label_N.astype(np.uint16) if sort == "cluster" else self._reason_N
            return order_N[np.argsort(label_N[order_N], kind="stable")]
        keys: dict[str, Callable[[], NDArray[Any]]] = {
            "score": lambda: self.difficulty_N,
            "forward": lambda: self.forward_N,
            "suppression": lambda: self.forward_N - fixed_N / SCALE,
        }
        if sort not in keys:
            raise UserError(f"sort: found {sort!r}; expected one of {', '.join(get_args(Sort))}")
        return np.argsort(-keys[sort](), kind="stable")

    def _match_text(self, text: str) -> NDArray[np.bool_]:
        """Which samples match a text, bool [N]."""
        uid = normal_uid(text) or text.lower()

        def match_part(part: int) -> NDArray[np.bool_]:
            table = self._read_text(part)
            hit = pc.match_substring(table["caption"], text, ignore_case=True)
            for other in (pc.starts_with(table["uid"], uid), pc.equal(table["key"], text)):
                hit = pc.or_(pc.fill_null(hit, False), other)
            return np.asarray(hit.to_numpy()).astype(bool)

        with ThreadPoolExecutor(_THREADS) as pool:
            masks = list(pool.map(match_part, range(len(self.run.embed.units))))
        return np.concatenate(masks) if masks else np.zeros(0, bool)

    def _read_text(self, part: int) -> pa.Table:
        found = self._texts.get(part)
        if found is None:
            found = self.run.parts.peek(part, SAMPLES, _TEXTS)
            if self._keep_texts:
                with self._lock:
                    self._texts[part] = found
        return found
