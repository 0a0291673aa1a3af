"""What the report counts over whole parts of the pool: shifts, suppression, near-copies.

Reads samples, decisions and the graph of every part, or of a random choice of parts if the pool has
more rows than `ReportParams.survey_rows`; no embeddings. Parts are read by several threads and counted
in canonical order, so the result does not depend on the number of threads. S rows surveyed.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from d2prune.inputs.tables.column_names import IMAGE_HASHES
from d2prune.parts import files
from d2prune.parts.reader import Parts
from d2prune.parts.spans import Spans
from d2prune.report import suppression
from d2prune.report.duplicate_groups import DuplicateGroups, group_near_copies, read_groups
from d2prune.report.metrics import NEAR_DUPLICATE
from d2prune.report.record import ReportParams, RunRecord
from d2prune.report.shifts import Property, Shifts
from d2prune.report.suppression import NearEdges
from d2prune.report.tally import (
    RANKING_COLUMNS,
    exact_ranks,
    float_column,
    integer_column,
    ranked_column,
)

_THREADS = 4
_NO_EDGES = NearEdges(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


@dataclass(frozen=True)
class Survey:
    """S rows of the pool: all rows of some parts, in canonical order.

    Attributes:
        positions_S: int64, canonical positions.
        parts: how many parts were read, of how many that have rows.
        properties: what the selection kept more or less of, the largest shift first.
        kept_S: bool.
        score_S: float64, the score without its offset.
        rank_S: int64, the exact selection score; the lowest int64 if a sample was not ranked.
        margin_S: float64, selection score minus the lowest one kept of the sample's group; nan if it was
            not ranked, or nothing of its group was kept.
        thresholds: the lowest selection score kept of each group; without groups, that of the group "".
        suppressed_S: bool, the samples that only suppression dropped.
        suppressor_S: int64, canonical position of the strongest suppressor, -1: none.
        cosine_S: float64, cosine to it; nan: none.
        near: pairs of near-copies, as rows of the survey.
        groups: groups of duplicates; of the whole pool if the `dedup` stage ran.
        has_graph: whether the run has a graph with neighbours.
    """

    positions_S: NDArray[np.int64]
    parts: tuple[int, int]
    properties: tuple[Property, ...]
    kept_S: NDArray[np.bool_]
    score_S: NDArray[np.float64]
    rank_S: NDArray[np.int64]
    margin_S: NDArray[np.float64]
    thresholds: Mapping[str, float]
    suppressed_S: NDArray[np.bool_]
    suppressor_S: NDArray[np.int64]
    cosine_S: NDArray[np.float64]
    near: NearEdges
    groups: DuplicateGroups
    has_graph: bool

    def __len__(self) -> int:
        return len(self.positions_S)


@dataclass(frozen=True)
class _Part:
    """What is read of one part."""

    start: int
    shifts: Shifts
    labels: list[str]
    score: NDArray[np.float64]
    forward: NDArray[np.float64]
    selection: NDArray[np.float64]
    rank: NDArray[np.int64]
    kept: NDArray[np.bool_]
    reason: pa.ChunkedArray
    suppressor: NDArray[np.int64]
    cosine: NDArray[np.float64]
    near: NearEdges


def choose_parts(spans: Spans, max_rows: int, seed: int) -> list[int]:
    """Parts that have rows: all of them, or a random choice with at most `max_rows` rows, at least one."""
    rows_P = np.diff(spans.starts)
    parts = np.flatnonzero(rows_P)
    if rows_P.sum() <= max_rows:
        return [int(part) for part in parts]
    shuffled = np.random.default_rng(seed).permutation(parts)
    fits = max(int(np.searchsorted(np.cumsum(rows_P[shuffled]), max_rows, side="right")), 1)
    return sorted(int(part) for part in shuffled[:fits])


def read_survey(pool: Parts, record: RunRecord, params: ReportParams) -> Survey:
    """Read and count.

    Raises:
        DamagedFileError: a table is missing or damaged.
    """
    chosen = choose_parts(pool.spans, params.survey_rows, params.seed)
    # A checksum of every image has no value that samples share.
    fields = tuple(
        name
        for name, kind in record.embed.params.get("fields", ())
        if kind == "text" and name != IMAGE_HASHES
    )
    groups_by = record.select.params.get("groups")
    has_graph = bool(record.graph.units) and record.graph.facts.get("n_neighbors", 1) != 0
    shifts = Shifts(fields)

    def read(part: int) -> _Part:
        return _read_part(pool, part, fields, groups_by, record, has_graph)

    with ThreadPoolExecutor(_THREADS) as threads:
        found = list(threads.map(read, chosen))
    for part in found:
        shifts.merge(part.shifts)
    return _join(pool, record, found, shifts, has_graph)


def _read_part(
    pool: Parts, part: int, fields: tuple[str, ...], groups_by: str | None, record: RunRecord, has_graph: bool
) -> _Part:
    start, _ = pool.spans.bounds(part)
    shifts = Shifts(fields)
    labels = [groups_by] if groups_by and groups_by not in shifts.columns else []
    samples = pool.peek(part, files.SAMPLES, [*shifts.columns, *labels])
    decisions = pool.peek(part, files.DECISIONS, RANKING_COLUMNS)
    kept_N = float_column(decisions, "kept").astype(bool)
    shifts.add(samples, kept_N)
    suppressor_N = integer_column(decisions, "suppressor", -1)
    cosine_N, near = np.full(len(kept_N), np.nan), _NO_EDGES
    if has_graph:
        neighbors = pool.peek(part, files.NEIGHBORS, ["indices", "sq_distances"])
        cosine_N = suppression.suppressor_cosines(neighbors, suppressor_N)
        near = suppression.near_edges(neighbors, start)
    return _Part(
        start,
        shifts,
        [group_name(label) for label in samples[groups_by].to_pylist()] if groups_by else [""] * len(kept_N),
        float_column(decisions, "difficulty") - record.score_offset,
        ranked_column(decisions, "forward_score"),
        ranked_column(decisions, "selection_score"),
        exact_ranks(decisions),
        kept_N,
        decisions["reason"],
        suppressor_N,
        cosine_N,
        near,
    )


def _join(pool: Parts, record: RunRecord, found: list[_Part], shifts: Shifts, has_graph: bool) -> Survey:
    def join(name: str, dtype: type) -> NDArray[np.generic]:
        return np.concatenate([np.zeros(0, dtype), *(getattr(part, name) for part in found)])

    positions_S = np.concatenate(
        [np.zeros(0, np.int64), *(part.start + np.arange(len(part.kept)) for part in found)]
    )
    kept_S, rank_S = join("kept", bool).astype(bool), join("rank", np.int64).astype(np.int64)
    near = NearEdges(
        *(
            np.concatenate([getattr(_NO_EDGES, name), *(getattr(part.near, name) for part in found)])
            for name in ("from_E", "to_E", "sq_distances_E")
        )
    )
    suppressed_S = np.zeros(len(kept_S), bool)
    labels = [label for part in found for label in part.labels]
    selection_S = join("selection", float).astype(np.float64)
    thresholds, threshold_S = _thresholds(labels, kept_S, selection_S)
    if record.method == "d2" and has_graph and found:
        reasons = pa.chunked_array([chunk for part in found for chunk in part.reason.chunks], pa.string())
        forward_S = join("forward", float).astype(np.float64)
        suppressed_S = suppression.only_suppressed(reasons, forward_S, threshold_S)
    groups = (
        read_groups(pool)
        if record.dedup is not None
        else group_near_copies(near, positions_S, rank_S, NEAR_DUPLICATE)
    )
    return Survey(
        positions_S=positions_S,
        parts=(len(found), int((np.diff(pool.spans.starts) > 0).sum())),
        properties=shifts.properties(),
        kept_S=kept_S,
        score_S=join("score", float).astype(np.float64),
        rank_S=rank_S,
        margin_S=np.where(np.isfinite(threshold_S), selection_S - threshold_S, np.nan),
        thresholds=thresholds,
        suppressed_S=suppressed_S,
        suppressor_S=join("suppressor", np.int64).astype(np.int64),
        cosine_S=join("cosine", float).astype(np.float64),
        near=_as_rows(near, positions_S),
        groups=groups,
        has_graph=has_graph,
    )


def _as_rows(near: NearEdges, positions_S: NDArray[np.int64]) -> NearEdges:
    """The edges between surveyed samples, by rows of the survey instead of canonical positions."""
    inside = np.isin(near.to_E, positions_S)
    return NearEdges(
        np.searchsorted(positions_S, near.from_E[inside]),
        np.searchsorted(positions_S, near.to_E[inside]),
        near.sq_distances_E[inside],
    )


def group_name(label: object) -> str:
    """The name of a group in `Survey.thresholds`, from its value in the table."""
    return "" if label is None else str(label)


def _thresholds(
    labels: list[str], kept_S: NDArray[np.bool_], selection_S: NDArray[np.float64]
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """The lowest selection score kept of each group and of each sample's; inf where nothing was kept."""
    names, code_S = np.unique(np.array(labels, np.str_), return_inverse=True)
    lowest = np.full(len(names), np.inf)
    np.minimum.at(lowest, code_S[kept_S], selection_S[kept_S])
    by_name = dict(zip(names.tolist(), lowest.tolist(), strict=True))
    return by_name, np.asarray(lowest[code_S], np.float64)
