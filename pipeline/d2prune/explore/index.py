"""The pool as columns in memory: filtered, sorted and cut at any fraction while a person waits.

Reads the decisions of a `FinishedRun`: about 40 bytes a sample for numbers, and captions and names
besides where these take less than `TEXT_LIMIT` (else they are read again for every search). Writes
nothing; safe to share among threads.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from d2prune.d2.budget import quotas, ranking, size_of_fraction
from d2prune.d2.fixed_point import SCALE
from d2prune.errors import UserError
from d2prune.explore.clusters import NONE, Clusters, read_clusters
from d2prune.explore.explain import CUT_OFF, Line
from d2prune.parts.files import DECISIONS, SAMPLES
from d2prune.runs.finished import FinishedRun

TEXT_LIMIT = 1 << 30
_NUMBERS = ("difficulty", "forward_score", "selection_fixed", "kept", "reason")
_TEXTS = ("uid", "key", "caption")
# zstd makes captions and hexadecimal uids about so much smaller.
_PACKED = 2
_THREADS = 4

Positions = NDArray[np.int64]
Sort = Literal["pool", "selection", "score", "forward", "taken", "cluster", "reason"]


@dataclass(frozen=True)
class Query:
    """What is asked for.

    Attributes:
        text: beginning of a uid, a key, or words in a caption, in any case; empty: all.
        reason: `kept`, `below-budget`, `cut-off`; empty: all.
        cluster: number of a cluster; None: all.
        low: lowest score (without its offset); None: no limit.
        high: highest.
        sort: by canonical position, selection score, score, forward score, or what neighbours took;
            or by cluster or reason, and within one by selection score.
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
class Cut:
    """The pool at another fraction.

    Attributes:
        size: samples kept.
        limited: whether more was asked for than is ranked.
        threshold: lowest selection score kept.
        mean_score: of the kept, without the offset.
        enters: positions kept now and not in the run, those nearest to the line first.
        leaves: likewise the other way.
    """

    size: int
    limited: bool
    threshold: float
    mean_score: float
    enters: Positions
    leaves: Positions


class Index:
    """See the module's text; built by reading all decisions once."""

    def __init__(self, run: FinishedRun, text_limit: int = TEXT_LIMIT) -> None:
        """Read the numbers; texts are read when they are first needed, or by `load_texts`."""
        self.run = run
        table = pa.concat_tables(run.parts.peek_all(DECISIONS, _NUMBERS))
        reason = table["reason"].combine_chunks().dictionary_encode()
        self.reasons: tuple[str, ...] = tuple(reason.dictionary.to_pylist())
        self._reason_N = reason.indices.to_numpy().astype(np.int8)
        self.difficulty_N = table["difficulty"].to_numpy()
        self.forward_N = table["forward_score"].to_numpy()
        self.line = Line(
            table["selection_fixed"].to_numpy(),
            np.asarray(pc.not_equal(table["reason"], CUT_OFF).to_numpy()).astype(bool),
            table["kept"].to_numpy().astype(bool),
        )
        packed = sum(file.size for unit in run.embed.units for file in unit.files if file.name == SAMPLES)
        self._keep_texts = packed * _PACKED <= text_limit
        self._texts: dict[int, pa.Table] = {}
        self._lock = threading.Lock()
        self._clustering = threading.Lock()
        self._clusters: Clusters | None = None
        self._matches = lru_cache(maxsize=8)(self._match)
        self._orders = lru_cache(maxsize=None)(self._order)

    def __len__(self) -> int:
        return len(self.difficulty_N)

    def counts(self) -> dict[str, int]:
        """Samples by reason."""
        return {name: int((self._reason_N == code).sum()) for code, name in enumerate(self.reasons)}

    @property
    def clusters(self) -> Clusters:
        """Which cluster each sample is in; the first to ask reads the embeddings, the others wait."""
        with self._clustering:
            if self._clusters is None:
                self._clusters = read_clusters(self.run)
            return self._clusters

    def cluster_of(self, position: int) -> int | None:
        """The cluster of a sample, if that is known by now."""
        found = self._clusters
        return None if found is None or found.label_N[position] == NONE else int(found.label_N[position])

    def cluster_counts(self) -> list[tuple[int, str, int, int]]:
        """(number, name, samples, kept) of each cluster that has any, the lowest kept share first, as in the report."""
        clusters = self.clusters
        samples = np.bincount(clusters.label_N[clusters.label_N != NONE], minlength=len(clusters.names))
        kept_N = self.line.kept_N & (clusters.label_N != NONE)
        kept = np.bincount(clusters.label_N[kept_N], minlength=len(clusters.names))
        rows = [
            (k, name, int(samples[k]), int(kept[k])) for k, name in enumerate(clusters.names) if samples[k]
        ]
        return sorted(rows, key=lambda row: (row[3] / row[2], row[0]))

    def load_texts(self) -> None:
        """Read captions and names ahead of the first search, and sort by selection score."""
        self._orders("selection")
        if self._keep_texts:
            with ThreadPoolExecutor(_THREADS) as pool:
                list(pool.map(self._text, range(len(self.run.embed.units))))

    def find(self, query: Query) -> Positions:
        """All positions that fit, sorted; ties in pool order."""
        order_N = self._orders(query.sort)
        if not query.descending:
            order_N = order_N[::-1]
        mask_N: NDArray[np.bool_] | None = None
        for found_N in self._masks(query):
            mask_N = found_N if mask_N is None else mask_N & found_N
        return order_N if mask_N is None else order_N[mask_N[order_N]]

    def _masks(self, query: Query) -> Any:
        if query.reason:
            code = self.reasons.index(query.reason) if query.reason in self.reasons else -1
            yield self._reason_N == code
        if query.cluster is not None:
            yield self.clusters.label_N == query.cluster
        score_N = self.difficulty_N
        if query.low is not None:
            yield score_N >= np.float32(query.low + self.run.offset)
        if query.high is not None:
            yield score_N <= np.float32(query.high + self.run.offset)
        if query.text.strip():
            yield self._matches(query.text.strip())

    def rows(self, positions: Positions) -> list[dict[str, Any]]:
        """What a list shows of the samples at `positions`."""
        part_N, row_N = self.run.parts.spans.locate(positions)
        order_N = np.argsort(part_N, kind="stable")
        found = []
        for part in np.unique(part_N).tolist():
            found += self._text(part).take(row_N[part_N == part]).to_pylist()
        texts = [found[at] for at in np.argsort(order_N, kind="stable")]
        return [
            {
                "position": position,
                **text,
                "score": float(self.difficulty_N[position]) - self.run.offset,
                "clamped": bool(self.difficulty_N[position] == 0),
                "forward": float(self.forward_N[position]),
                "selection": self.line.fixed_N[position] / SCALE if self.line.ranked_N[position] else None,
                "kept": bool(self.line.kept_N[position]),
                "reason": self.reasons[self._reason_N[position]],
            }
            for position, text in zip(positions.tolist(), texts, strict=True)
        ]

    def cut(self, fraction: float) -> Cut:
        """The pool at another fraction, from the stored ranking; groups get their shares as in the run.

        Raises:
            UserError: not in (0, 1].
        """
        kept_N, ranked = self.line.kept_N, int(self.line.ranked_N.sum())
        wanted = size_of_fraction(len(self), fraction)
        size = min(wanted, ranked)
        now_N = self._kept_at(size)
        fixed_N = self.line.fixed_N
        enters, leaves = np.flatnonzero(now_N & ~kept_N), np.flatnonzero(kept_N & ~now_N)
        return Cut(
            size=size,
            limited=wanted > ranked,
            threshold=float(fixed_N[now_N].min()) / SCALE if size else float("nan"),
            mean_score=float(self.difficulty_N[now_N].mean(dtype=np.float64)) - self.run.offset
            if size
            else 0.0,
            # The line moves down to let samples in: the last to come in are the highest of those
            # outside it before.
            enters=enters[np.argsort(~fixed_N[enters], kind="stable")],
            leaves=leaves[np.argsort(fixed_N[leaves], kind="stable")],
        )

    def _kept_at(self, size: int) -> NDArray[np.bool_]:
        group_N, rank_N, sizes = self._ranks
        if group_N is None:
            return rank_N < size
        share = np.asarray(quotas(sizes, size), np.int64)
        kept_N: NDArray[np.bool_] = self.line.ranked_N & (rank_N < share[group_N])
        return kept_N

    @cached_property
    def _ranks(self) -> tuple[NDArray[np.int32] | None, NDArray[np.int32], list[int]]:
        """Group of each sample (None: one group), its rank within the group from 0, and members per group.

        A sample that is not ranked comes after all that are.
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
        # The stage shares by the labels' order, which decides who gets the remainder of equals.
        names = np.asarray(labels.dictionary.to_pylist(), np.str_)
        code_N = np.argsort(np.argsort(names, kind="stable"), kind="stable").astype(np.int32)[code_N]
        ranked_N = self.line.ranked_N
        by_group = order_N[np.argsort(code_N[order_N], kind="stable")]
        ends = np.bincount(code_N, minlength=len(names))
        rank_N[by_group] = np.arange(len(self)) - np.repeat(np.cumsum(ends) - ends, ends)
        return code_N, rank_N, np.bincount(code_N[ranked_N], minlength=len(names)).tolist()

    def _order(self, sort: Sort) -> Positions:
        """Positions by falling value."""
        line = self.line
        if sort == "pool":
            return np.arange(len(self))[::-1]
        if sort == "selection":
            order_N = ranking(line.fixed_N)
            ranked_N = line.ranked_N[order_N]
            return np.concatenate([order_N[ranked_N], order_N[~ranked_N]])
        if sort in ("cluster", "reason"):
            order_N = self._orders("selection")
            # Those in no cluster come last.
            label_N = self.clusters.label_N.astype(np.uint16) if sort == "cluster" else self._reason_N
            return order_N[np.argsort(label_N[order_N], kind="stable")]
        keys: dict[str, Callable[[], NDArray[Any]]] = {
            "score": lambda: self.difficulty_N,
            "forward": lambda: self.forward_N,
            "taken": lambda: self.forward_N - line.fixed_N / SCALE,
        }
        if sort not in keys:
            raise UserError(
                f"sort: got {sort!r}, expected one of pool, selection, cluster, reason, {', '.join(keys)}"
            )
        return np.argsort(-keys[sort](), kind="stable")

    def _match(self, text: str) -> NDArray[np.bool_]:
        """Which samples a text finds."""

        def part_mask(part: int) -> NDArray[np.bool_]:
            table = self._text(part)
            hit = pc.match_substring(table["caption"], text, ignore_case=True)
            for other in (pc.starts_with(table["uid"], text.lower()), pc.equal(table["key"], text)):
                hit = pc.or_(pc.fill_null(hit, False), other)
            return np.asarray(hit.to_numpy()).astype(bool)

        with ThreadPoolExecutor(_THREADS) as pool:
            masks = list(pool.map(part_mask, range(len(self.run.embed.units))))
        return np.concatenate(masks) if masks else np.zeros(0, bool)

    def _text(self, part: int) -> pa.Table:
        found = self._texts.get(part)
        if found is None:
            found = self.run.parts.peek(part, SAMPLES, _TEXTS)
            if self._keep_texts:
                with self._lock:
                    self._texts[part] = found
        return found
