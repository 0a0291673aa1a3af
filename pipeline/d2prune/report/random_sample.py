"""The seeded random sample of the pool that the clusters and the measures are computed on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune.knn.features import features
from d2prune.parts.reader import Parts
from d2prune.parts.spans import Spans
from d2prune.report.record import ReportParams, RunRecord
from d2prune.report.tally import (
    RANKING_COLUMNS,
    exact_ranks,
    float_column,
    integer_column,
    ranked_column,
)
from d2prune.store import artifacts

_COLUMNS = ("caption", *RANKING_COLUMNS, "suppression")


@dataclass(frozen=True)
class RandomSample:
    """N rows of the pool in canonical order.

    Attributes:
        positions_N: int64, canonical positions.
        points_ND: float32, unit-norm features.
        captions: of each row.
        score_N: float64, the score without its offset.
        selection_N: float64, the selection score; nan if a sample was not ranked.
        rank_N: int64, the exact selection score; the lowest int64 if a sample was not ranked.
        support_N: float64, what the forward pass added: high in dense regions.
        kept_N: bool.
        suppressor_N: int64, canonical position of the neighbour that sent the strongest suppression;
            -1 if none did.
        suppression_N: float64, that suppression; nan if there was none.
    """

    positions_N: NDArray[np.int64]
    points_ND: NDArray[np.float32]
    captions: tuple[str, ...]
    score_N: NDArray[np.float64]
    selection_N: NDArray[np.float64]
    rank_N: NDArray[np.int64]
    support_N: NDArray[np.float64]
    kept_N: NDArray[np.bool_]
    suppressor_N: NDArray[np.int64]
    suppression_N: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.positions_N)


def draw_positions(spans: Spans, size: int, max_groups: int, seed: int) -> NDArray[np.int64]:
    """Draw at most `size` canonical positions from at most `max_groups` row groups of the embeddings.

    Embeddings are read in whole row groups, so limiting these bounds what a report reads, however
    large the pool.

    Returns:
        int64, distinct and ascending.
    """
    rng = np.random.default_rng(seed)
    starts_G, rows_G = _list_row_groups(spans)
    if len(starts_G) > max_groups:
        drawn = np.sort(rng.choice(len(starts_G), max_groups, replace=False))
        starts_G, rows_G = starts_G[drawn], rows_G[drawn]
    groups = Spans.of_rows(rows_G.tolist())
    total = len(groups)
    chosen = np.arange(total)
    if total > size:
        chosen = np.sort(rng.choice(total, size, replace=False, shuffle=False))
    group_N, row_N = groups.locate(chosen)
    return np.asarray(starts_G[group_N] + row_N, dtype=np.int64)


def _list_row_groups(spans: Spans) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First canonical position and number of rows of every row group of the embeddings, int64 [G] each."""
    rows_P = np.diff(spans.starts)
    counts_P = -(-rows_P // artifacts.ROWS_PER_GROUP)
    part_G = np.repeat(np.arange(len(counts_P)), counts_P)
    first_G = np.concatenate([np.arange(count) for count in counts_P] or [np.zeros(0, np.int64)])
    first_G = first_G.astype(np.int64) * artifacts.ROWS_PER_GROUP
    return spans.starts[part_G] + first_G, np.minimum(rows_P[part_G] - first_G, artifacts.ROWS_PER_GROUP)


def read_random_sample(pool: Parts, record: RunRecord, params: ReportParams) -> RandomSample:
    """Read the random sample that `params` describes."""
    positions_N = draw_positions(pool.spans, params.sample_rows, params.sample_groups, params.seed)
    table = pool.take_merged(positions_N, _COLUMNS)
    image_ND, text_ND = pool.take_vectors(positions_N, record.embeddings_file)
    difficulty_N = float_column(table, "difficulty")
    return RandomSample(
        positions_N=positions_N,
        points_ND=features(record.features, image_ND, text_ND),
        captions=tuple(caption or "" for caption in table["caption"].to_pylist()),
        score_N=difficulty_N - record.score_offset,
        selection_N=ranked_column(table, "selection_score"),
        rank_N=exact_ranks(table),
        support_N=ranked_column(table, "forward_score") - difficulty_N,
        kept_N=float_column(table, "kept").astype(bool),
        suppressor_N=integer_column(table, "suppressor", -1),
        suppression_N=float_column(table, "suppression"),
    )
