"""Galleries and clusters: rows chosen by `gallery`, read by position, with thumbnails and words beside them."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from d2prune.parts.reader import Parts
from d2prune.report import formatting, gallery, metrics
from d2prune.report.data import Cluster, Gallery, Picture, ReportParams, RunRecord
from d2prune.report.pool_sample import Sample
from d2prune.report.tally import CUT_OFF, Tally, floats
from d2prune.report.thumbnails import Source, thumbnails

_COLUMNS = (
    "uid", "shard", "key", "caption", "offset", "size", "difficulty", "forward_score", "selection_score", "kept",
    "reason", "suppressor", "suppression",
)  # fmt: skip
_THUMBNAIL_BUDGET = 3_600_000
_PER_CLUSTER = 6

Positions = NDArray[np.int64]


def show(
    pool: Parts,
    record: RunRecord,
    sample: Sample,
    tally: Tally,
    clustering: tuple[NDArray[np.int64], NDArray[np.float32]],
    params: ReportParams,
) -> tuple[tuple[Gallery, ...], tuple[Cluster, ...]]:
    """Choose, read and describe what is shown.

    Args:
        pool: where rows are read from.
        record: the run; its shards hold the pictures.
        sample: the seeded sample.
        tally: the counts and extremes of the whole pool.
        clustering: int64 [N], the cluster of each row of the sample, and float32 [C, D] centroids.
        params: how many, and the seed.

    Returns:
        The galleries (none where `params.gallery` is 0) and the clusters.
    """
    label_N, centres = clustering
    half = -(-params.gallery // 2)
    dense, sparse = gallery.dense_and_sparse(sample.crowding_N, sample.kept_N)
    dense = sample.positions_N[gallery.spread(dense, label_N, half, params.seed)]
    sparse = sample.positions_N[gallery.spread(sparse, label_N, half, params.seed)]
    pairs, notes, cosines = _pairs(pool, sample, record, half)
    mismatched = tally.lowest_dropped.positions[:half]
    border = np.concatenate([tally.border_kept.positions[:half][::-1], tally.border_dropped.positions[:half]])
    typical = {
        cluster: sample.positions_N[_nearest(sample.points_ND, label_N, cluster, centres[cluster])]
        if params.gallery
        else sample.positions_N[:0]
        for cluster in np.unique(label_N).tolist()
    }
    # In this order, so that a page that is full does without pictures of clusters, not of galleries.
    chosen = [dense, sparse, pairs, mismatched, border, *typical.values()]
    pictures = _pictures(pool, record, np.concatenate(chosen), params.max_pixels, tally.threshold)

    def of(positions: Positions) -> tuple[Picture, ...]:
        return tuple(pictures[position] for position in positions.tolist())

    beside = tuple(
        replace(
            picture, note=note, scores=(*picture.scores, ("cosine", formatting.number(cosines[index // 2])))
        )
        for index, (picture, note) in enumerate(zip(of(pairs), notes, strict=True))
    )

    overall = tally.kept / (tally.samples or 1)
    galleries = (
        Gallery(
            "Kept from dense regions",
            "From the most crowded tenth: each stands for many samples much like it.",
            of(dense),
            "Nothing was kept.",
        ),
        Gallery(
            "Kept from sparse regions",
            "From the least crowded tenth: unlike the rest of the pool, so nothing else could stand for them.",
            of(sparse),
            "Nothing was kept.",
        ),
        Gallery(
            "Dropped as duplicates",
            "Each beside the neighbour that lowered its score most. The closer two samples are, the more the one "
            "picked first takes from the other.",
            beside,
            "No dropped sample was suppressed by a neighbour.",
            pairs=True,
        ),
        Gallery(
            f"Dropped with the lowest {record.score_name}",
            "Picture and caption agree least here: mostly mismatched or meaningless captions."
            if record.score_name == "clip_score"
            else "The least wanted before neighbours had their say.",
            of(mismatched),
            "No sample was dropped.",
        ),
        Gallery(
            "Borderline",
            "Just kept and just dropped: a slightly different fraction would change these first.",
            of(border),
            "No sample is near the threshold.",
        ),
    )
    telling = gallery.telling_words(sample.captions, label_N)
    clusters = tuple(
        Cluster(
            telling[cluster] or "no common words", count, count / len(sample), share, of(typical[cluster])
        )
        for cluster, count, share in metrics.cluster_shares(label_N, sample.kept_N)
    )
    # One cluster says nothing that the headline does not.
    return galleries if params.gallery and overall else (), clusters if len(clusters) > 1 else ()


def _nearest(
    points_ND: NDArray[np.float32], label_N: NDArray[np.int64], cluster: int, centre_D: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Rows of a cluster nearest to its centroid."""
    rows = np.flatnonzero(label_N == cluster)
    return np.asarray(
        rows[np.argsort(-(points_ND[rows] @ centre_D), kind="stable")][:_PER_CLUSTER], dtype=np.int64
    )


def _pairs(
    pool: Parts, sample: Sample, record: RunRecord, size: int
) -> tuple[Positions, list[str], list[float]]:
    """Dropped samples of the sample that lie closest to their suppressor.

    Returns:
        Positions [2 P]: each sample followed by its suppressor; the note on each; the P cosines.
    """
    rows = np.flatnonzero(~sample.kept_N & (sample.suppressor_N >= 0) & (sample.suppression_N > 0))
    if not len(rows) or not size:
        return sample.positions_N[:0], [], []
    scores = pool.take_merged(sample.suppressor_N[rows], ("selection_score",))
    rows = rows[gallery.closest_pairs(sample.suppression_N[rows], floats(scores, "selection_score"))][
        : 8 * size
    ]
    suppressors = sample.suppressor_N[rows]
    by = pool.take_merged(suppressors, ("kept",))
    image, text = pool.take_vectors(suppressors, record.embeddings)
    similarity = np.einsum(
        "nd,nd->n", sample.points_ND[rows], metrics.join_features(image, text, record.features)
    )
    by_kept = floats(by, "kept").astype(bool)
    chosen = gallery.pick_pairs(suppressors, similarity.astype(np.float64), by_kept, size)
    notes: list[str] = []
    for row in chosen.tolist():
        near = similarity[row] >= metrics.NEAR_DUPLICATE
        notes.append("dropped: near-duplicate" if near else "dropped: a neighbour was picked first")
        notes.append("kept: its neighbour" if by_kept[row] else "dropped too: its neighbour")
    positions = np.stack([sample.positions_N[rows[chosen]], suppressors[chosen]], axis=1).reshape(-1)
    return positions, notes, similarity[chosen].tolist()


def _pictures(
    pool: Parts, record: RunRecord, positions: Positions, max_pixels: int, threshold: float
) -> dict[int, Picture]:
    """Position -> picture, each sample read once."""
    once, first = np.unique(positions, return_index=True)
    once = once[np.argsort(first)]
    table = pool.take_merged(once, _COLUMNS)
    parts = pool.spans.part_of(once).tolist()
    sources = [
        Source(record.shards[part].url, offset, size)
        for part, offset, size in zip(
            parts, table["offset"].to_pylist(), table["size"].to_pylist(), strict=True
        )
    ]
    images = (
        thumbnails(sources, max_pixels, _THUMBNAIL_BUDGET) if record.has_pictures else [""] * len(sources)
    )
    return {
        position: _picture(row, record, threshold, image)
        for position, row, image in zip(once.tolist(), table.to_pylist(), images, strict=True)
    }


def _picture(row: dict[str, object], record: RunRecord, threshold: float, image: str) -> Picture:
    ranked = row["reason"] != CUT_OFF
    difficulty = _float(row["difficulty"])
    return Picture(
        uid=gallery.shorten(str(row["uid"]), 64),
        shard=gallery.shorten(str(row["shard"]), 80),
        key=gallery.shorten(str(row["key"]), 80),
        caption=gallery.shorten(str(row["caption"] or "")),
        kept=bool(row["kept"]),
        scores=(
            (record.score_name, formatting.score(difficulty, record.score_offset)),
            ("forward", formatting.number(_float(row["forward_score"]) if ranked else None)),
            ("selection", formatting.number(_float(row["selection_score"]) if ranked else None)),
        ),
        note=_note(str(row["reason"]), _float(row["forward_score"]), threshold),
        image=image,
    )


def _note(reason: str, forward: float | None, threshold: float) -> str:
    """What happened to a sample, and why: too low from the start, or lowered by neighbours that were picked."""
    if reason != "below-budget" or forward is None:
        return reason if reason == "kept" else f"dropped: {reason}"
    return "dropped: low from the start" if forward < threshold else "dropped: neighbours stand for it"


def _float(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
