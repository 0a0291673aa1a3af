"""The seeded sample of the pool that the map, the clusters and the measures are made from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune.parts.reader import Parts
from d2prune.parts.spans import Spans
from d2prune.report import metrics
from d2prune.report.data import ReportParams, RunRecord
from d2prune.report.tally import competing, floats, integers
from d2prune.store import artifacts

_COLUMNS = (
    "caption",
    "difficulty",
    "forward_score",
    "selection_score",
    "selection_fixed",
    "kept",
    "reason",
    "suppressor",
    "suppression",
)


@dataclass(frozen=True)
class Sample:
    """N rows of the pool in canonical order.

    Attributes:
        positions_N: int64, canonical positions.
        points_ND: float32, unit-norm features.
        captions: of each row.
        difficulty_N: float64, the score without its offset.
        selection_N: float64; nan where a sample was not ranked.
        rank_N: int64, the exact selection score; the lowest int64 where a sample was not ranked.
        crowding_N: float64, what the forward pass added: high in dense regions.
        kept_N: bool.
        suppressor_N: int64, canonical position of the neighbour that lowered the score most; -1
            where none did.
        suppression_N: float64, by how much; nan where none did.
    """

    positions_N: NDArray[np.int64]
    points_ND: NDArray[np.float32]
    captions: tuple[str, ...]
    difficulty_N: NDArray[np.float64]
    selection_N: NDArray[np.float64]
    rank_N: NDArray[np.int64]
    crowding_N: NDArray[np.float64]
    kept_N: NDArray[np.bool_]
    suppressor_N: NDArray[np.int64]
    suppression_N: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.positions_N)


def choose_positions(spans: Spans, size: int, max_groups: int, seed: int) -> NDArray[np.int64]:
    """Seeded, ascending canonical positions of at most `size` samples, from at most `max_groups` row groups.

    Embeddings are read in whole row groups, so their number is limited: a report cannot read a billion rows.
    """
    rng = np.random.default_rng(seed)
    starts, sizes = _list_row_groups(spans)
    if len(starts) > max_groups:
        drawn = np.sort(rng.choice(len(starts), max_groups, replace=False))
        starts, sizes = starts[drawn], sizes[drawn]
    groups = Spans.of_rows(sizes.tolist())
    total = len(groups)
    chosen = np.arange(total)
    if total > size:
        chosen = np.sort(rng.choice(total, size, replace=False, shuffle=False))
    group_N, row_N = groups.locate(chosen)
    return np.asarray(starts[group_N] + row_N, dtype=np.int64)


def _list_row_groups(spans: Spans) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Canonical position of the first row, and rows, of every row group of the embeddings."""
    rows_P = np.diff(spans.starts)
    counts_P = -(-rows_P // artifacts.ROWS_PER_GROUP)
    part_G = np.repeat(np.arange(len(counts_P)), counts_P)
    first_G = np.concatenate([np.arange(count) for count in counts_P] or [np.zeros(0, np.int64)])
    first_G = first_G.astype(np.int64) * artifacts.ROWS_PER_GROUP
    return spans.starts[part_G] + first_G, np.minimum(rows_P[part_G] - first_G, artifacts.ROWS_PER_GROUP)


def read_sample(pool: Parts, record: RunRecord, params: ReportParams) -> Sample:
    """Read a seeded sample, of the size and from as many row groups as `params` allows."""
    positions_N = choose_positions(pool.spans, params.sample_rows, params.sample_groups, params.seed)
    table = pool.take_merged(positions_N, _COLUMNS)
    image_ND, text_ND = pool.take_vectors(positions_N, record.embeddings)
    difficulty_N, selection_N = floats(table, "difficulty"), competing(table, "selection_score")
    lowest = int(np.iinfo(np.int64).min)
    return Sample(
        positions_N=positions_N,
        points_ND=metrics.join_features(image_ND, text_ND, record.features),
        captions=tuple(caption or "" for caption in table["caption"].to_pylist()),
        difficulty_N=difficulty_N - record.score_offset,
        selection_N=selection_N,
        rank_N=np.where(np.isnan(selection_N), lowest, integers(table, "selection_fixed", lowest)),
        crowding_N=competing(table, "forward_score") - difficulty_N,
        kept_N=floats(table, "kept").astype(bool),
        suppressor_N=integers(table, "suppressor", -1),
        suppression_N=floats(table, "suppression"),
    )
