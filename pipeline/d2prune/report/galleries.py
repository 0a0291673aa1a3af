"""The galleries and clusters of the page: chosen samples, each with image, scores and outcome."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from d2prune.knn.features import features
from d2prune.parts.reader import Parts
from d2prune.report import formatting, gallery_choice, metrics
from d2prune.report.captions import distinctive_words, shorten
from d2prune.report.outcome import NOT_RANKED, describe_outcome
from d2prune.report.page_data import Cluster, Gallery, SampleCard
from d2prune.report.random_sample import RandomSample
from d2prune.report.record import ReportParams, RunRecord
from d2prune.report.tally import Tally, float_column
from d2prune.report.thumbnails import ImageSource, make_thumbnails

_COLUMNS = (
    "uid", "shard", "key", "caption", "offset", "size", "difficulty", "forward_score", "selection_score",
    "kept", "reason", "suppressed_by",
)  # fmt: skip
_THUMBNAIL_BUDGET = 3_600_000
"""Characters that all thumbnails of a page may take together."""
_PER_CLUSTER = 6

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class _Pairs:
    """Dropped samples with the neighbours that suppressed them most, or with their keepers.

    Attributes:
        positions: int64 [2 P], each dropped sample followed by the other.
        notes: what happened to each of the 2 P samples.
        cosines: of the P pairs.
    """

    positions: Positions
    notes: list[str]
    cosines: list[float]


@dataclass(frozen=True)
class _Chosen:
    """Canonical positions of the samples in each gallery, int64."""

    dense: Positions
    sparse: Positions
    pairs: _Pairs
    lowest: Positions
    border: Positions
    duplicates: _Pairs

    def positions(self) -> Positions:
        """All of them, in the order of the galleries."""
        singles = self.dense, self.sparse, self.pairs.positions, self.lowest, self.border
        return np.concatenate([*singles, self.duplicates.positions])


def build_galleries(
    pool: Parts,
    record: RunRecord,
    sample: RandomSample,
    tally: Tally,
    clustering: tuple[NDArray[np.int64], NDArray[np.float32]],
    params: ReportParams,
) -> tuple[tuple[Gallery, ...], tuple[Cluster, ...]]:
    """Choose samples, read them and describe them.

    Args:
        pool: where rows are read from.
        record: the run.
        sample: the random sample.
        tally: counts and extremes of the whole pool.
        clustering: int64 [N], the cluster of each row of the sample, and float32 [C, D] centroids.
        params: how many samples, and the seed.

    Returns:
        The galleries, none if `params.gallery` is 0 or nothing was kept; the clusters, none if there
        is only one.
    """
    label_N, centroids_CD = clustering
    half = -(-params.gallery // 2)
    dense, sparse = (
        sample.positions_N[gallery_choice.spread_over_clusters(rows, label_N, half, params.seed)]
        for rows in gallery_choice.dense_and_sparse(sample.support_N, sample.kept_N)
    )
    chosen = _Chosen(
        dense=dense,
        sparse=sparse,
        pairs=_choose_pairs(pool, sample, record, half),
        lowest=tally.lowest_dropped.positions[:half],
        border=np.concatenate(
            [tally.border_kept.positions[:half][::-1], tally.border_dropped.positions[:half]]
        ),
        duplicates=_choose_duplicates(pool, sample, record, half),
    )
    typical = {
        label: sample.positions_N[_choose_typical(sample.points_ND, label_N, label, centroids_CD[label])]
        if params.gallery
        else sample.positions_N[:0]
        for label in np.unique(label_N).tolist()
    }
    # Thumbnails are made in this order until the page is full, so clusters lose theirs before galleries do.
    positions = np.concatenate([chosen.positions(), *typical.values()])
    cards = _read_cards(pool, record, positions, params.max_pixels, tally.threshold)
    galleries = _make_galleries(record.score_name, chosen, cards)
    words = distinctive_words(sample.captions, label_N)
    clusters = tuple(
        Cluster(
            words[label] or "no common words",
            count,
            count / len(sample),
            share,
            _pick_cards(cards, typical[label]),
        )
        for label, count, share in metrics.cluster_shares(label_N, sample.kept_N)
    )
    return galleries if params.gallery and tally.kept else (), clusters if len(clusters) > 1 else ()


def _make_galleries(score_name: str, chosen: _Chosen, cards: dict[int, SampleCard]) -> tuple[Gallery, ...]:
    """The galleries in the order shown."""
    duplicates = Gallery(
        "Dropped before the ranking",
        "Exact copies and near-duplicates, each next to the sample that stays in its place.",
        _pair_cards(cards, chosen.duplicates),
        "",
        pairs=True,
    )
    return (
        Gallery(
            "Kept from dense regions",
            "From the densest tenth of the pool: each represents many similar samples.",
            _pick_cards(cards, chosen.dense),
            "Nothing was kept.",
        ),
        Gallery(
            "Kept from sparse regions",
            "From the sparsest tenth of the pool: unlike any other sample, so nothing else represents them.",
            _pick_cards(cards, chosen.sparse),
            "Nothing was kept.",
        ),
        Gallery(
            "Dropped as duplicates",
            "Each is shown next to the neighbour that lowered its score most. The closer two samples are, "
            "the more the one picked first lowers the score of the other.",
            _pair_cards(cards, chosen.pairs),
            "No dropped sample was suppressed by a neighbour.",
            pairs=True,
        ),
        Gallery(
            f"Dropped with the lowest {score_name}",
            "Image and caption match least here, often because the caption is wrong or meaningless."
            if score_name == "clip_score"
            else "The lowest scores of the pool, before neighbours raise or lower them.",
            _pick_cards(cards, chosen.lowest),
            "No sample was dropped.",
        ),
        Gallery(
            "Close to the threshold",
            "The last samples kept and the first ones dropped: a slightly different fraction changes these "
            "first.",
            _pick_cards(cards, chosen.border),
            "No sample is close to the threshold.",
        ),
        *((duplicates,) if duplicates.cards else ()),
    )


def _pick_cards(cards: dict[int, SampleCard], positions: Positions) -> tuple[SampleCard, ...]:
    return tuple(cards[position] for position in positions.tolist())


def _pair_cards(cards: dict[int, SampleCard], pairs: _Pairs) -> tuple[SampleCard, ...]:
    """Return a card for each pair, with a note about the pair and its cosine."""
    return tuple(
        replace(
            card,
            note=note,
            scores=(*card.scores, ("cosine", formatting.number(pairs.cosines[index // 2]))),
        )
        for index, (card, note) in enumerate(
            zip(_pick_cards(cards, pairs.positions), pairs.notes, strict=True)
        )
    )


def _choose_typical(
    points_ND: NDArray[np.float32], label_N: NDArray[np.int64], label: int, centroid_D: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Rows of a cluster nearest to its centroid."""
    rows = np.flatnonzero(label_N == label)
    # The points are unit vectors, so the highest product is the lowest distance.
    nearest = np.argsort(-(points_ND[rows] @ centroid_D), kind="stable")[:_PER_CLUSTER]
    return np.asarray(rows[nearest], dtype=np.int64)


def _choose_pairs(pool: Parts, sample: RandomSample, record: RunRecord, size: int) -> _Pairs:
    """Dropped samples of the random sample that are closest to their suppressor, at most `size` pairs."""
    rows = np.flatnonzero(~sample.kept_N & (sample.suppressor_N >= 0) & (sample.suppression_N > 0))
    if not len(rows) or not size:
        return _Pairs(sample.positions_N[:0], [], [])
    scores = pool.take_merged(sample.suppressor_N[rows], ("selection_score",))
    closest = gallery_choice.closest_pairs(
        sample.suppression_N[rows], float_column(scores, "selection_score")
    )
    rows = rows[closest][: 8 * size]
    suppressors = sample.suppressor_N[rows]
    by_kept = float_column(pool.take_merged(suppressors, ("kept",)), "kept").astype(bool)
    points = features(record.features, *pool.take_vectors(suppressors, record.embeddings_file))
    similarity = np.einsum("nd,nd->n", sample.points_ND[rows], points)
    chosen = gallery_choice.pick_pairs(suppressors, similarity.astype(np.float64), by_kept, size)
    notes: list[str] = []
    for row in chosen.tolist():
        near = similarity[row] >= metrics.NEAR_DUPLICATE
        notes.append("dropped: near-duplicate" if near else "dropped: suppressed by a neighbour")
        notes.append("kept neighbour" if by_kept[row] else "dropped neighbour")
    positions = np.stack([sample.positions_N[rows[chosen]], suppressors[chosen]], axis=1).reshape(-1)
    return _Pairs(positions, notes, similarity[chosen].tolist())


def _choose_duplicates(pool: Parts, sample: RandomSample, record: RunRecord, size: int) -> _Pairs:
    """Samples of the random sample that were dropped before the ranking, one per keeper, at most `size`."""
    # A keeper suppresses without a message, since duplicates are not ranked.
    rows = np.flatnonzero(~sample.kept_N & (sample.suppressor_N >= 0) & (sample.suppression_N == 0))
    _, first = np.unique(sample.suppressor_N[rows], return_index=True)
    rows = rows[np.sort(first)][:size]
    if not len(rows):
        return _Pairs(sample.positions_N[:0], [], [])
    keepers, positions = sample.suppressor_N[rows], sample.positions_N[rows]
    points = features(record.features, *pool.take_vectors(keepers, record.embeddings_file))
    cosines = np.einsum("nd,nd->n", sample.points_ND[rows], points).tolist()
    reasons = pool.take_merged(positions, ("reason",))["reason"].to_pylist()
    is_kept = pool.take_merged(keepers, ("kept",))["kept"].to_pylist()
    notes: list[str] = []
    for reason, kept in zip(reasons, is_kept, strict=True):
        notes += [f"dropped: {reason}", "stays in its place, kept" if kept else "stays, below budget"]
    return _Pairs(np.stack([positions, keepers], axis=1).reshape(-1), notes, cosines)


def _read_cards(
    pool: Parts, record: RunRecord, positions: Positions, max_pixels: int, threshold: float
) -> dict[int, SampleCard]:
    """Position -> card; each sample is read once, and thumbnails are made in the order of `positions`."""
    once, first = np.unique(positions, return_index=True)
    once = once[np.argsort(first)]
    table = pool.take_merged(once, _COLUMNS)
    rows = table.to_pylist()
    images: Iterable[str] = [""] * len(rows)
    if record.has_images:
        parts = pool.spans.part_of(once).tolist()
        sources = [
            ImageSource(record.shard_urls[part], row["offset"], row["size"])
            for part, row in zip(parts, rows, strict=True)
        ]
        images = make_thumbnails(sources, max_pixels, _THUMBNAIL_BUDGET)
    return {
        position: _sample_card(row, record, threshold, image)
        for position, row, image in zip(once.tolist(), rows, images, strict=True)
    }


def _sample_card(row: dict[str, object], record: RunRecord, threshold: float, image: str) -> SampleCard:
    difficulty, forward, selection = (
        _as_float(row[name]) for name in ("difficulty", "forward_score", "selection_score")
    )
    reason = str(row["reason"])
    if reason in NOT_RANKED:
        forward = selection = None
    return SampleCard(
        uid=shorten(str(row["uid"]), 64),
        shard=shorten(str(row["shard"]), 80),
        key=shorten(str(row["key"]), 80),
        caption=shorten(str(row["caption"] or "")),
        kept=bool(row["kept"]),
        scores=(
            (record.score_name, formatting.score(difficulty, record.score_offset)),
            ("forward", formatting.number(forward)),
            ("selection", formatting.number(selection)),
        ),
        note=describe_outcome(reason, forward, threshold, record.method, _keeper_uid(row)),
        image=image,
    )


def _keeper_uid(row: dict[str, object]) -> str | None:
    return shorten(str(row["suppressed_by"]), 64) if row["suppressed_by"] else None


def _as_float(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
