"""Galleries and clusters: rows chosen by `gallery`, read by position, with thumbnails and words beside them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.report import gallery, metrics, words
from pipeline.report.data import Cluster, Gallery, Picture, ReportParams, RunRecord
from pipeline.report.pool import Pool
from pipeline.report.sample import Sample
from pipeline.report.tally import Tally, integers
from pipeline.report.thumbnails import Source, thumbnails

_COLUMNS = (
    "uid", "shard", "key", "caption", "offset", "size", "difficulty", "forward_score", "selection_score", "kept",
    "reason", "suppressor", "suppression",
)  # fmt: skip
_THUMBNAIL_BUDGET = 3_600_000
_PER_CLUSTER = 6

Positions = NDArray[np.int64]


def show(
    pool: Pool,
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
    pairs, similarity = _pairs(pool, record.features, tally.duplicates.positions, half)
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
    pictures = _pictures(pool, record, np.concatenate(chosen), params.max_pixels)

    def noted(positions: Positions, notes: Sequence[str] | None = None) -> tuple[Picture, ...]:
        return tuple(
            pictures[position] if notes is None else _with_note(pictures[position], note)
            for position, note in zip(positions.tolist(), notes or [""] * len(positions), strict=True)
        )

    overall = tally.kept / (tally.samples or 1)
    galleries = (
        Gallery(
            "Kept from dense regions",
            "From the most crowded tenth: each stands for many samples much like it.",
            noted(dense),
            "Nothing was kept.",
        ),
        Gallery(
            "Kept from sparse regions",
            "From the least crowded tenth: unlike the rest of the pool, so nothing else could stand for them.",
            noted(sparse),
            "Nothing was kept.",
        ),
        Gallery(
            "Dropped as duplicates",
            "Each beside the neighbour that lowered its score most. The closer two samples are, the more the one "
            "picked first takes from the other.",
            noted(pairs, similarity),
            "No dropped sample was suppressed by a neighbour.",
            pairs=True,
        ),
        Gallery(
            f"Dropped with the lowest {record.score_name}",
            "Picture and caption agree least here: mostly mismatched or meaningless captions.",
            noted(mismatched),
            "No sample was dropped.",
        ),
        Gallery(
            "Borderline",
            "Just kept and just dropped: a slightly different fraction would change these first.",
            noted(border),
            "No sample is near the threshold.",
        ),
    )
    telling = gallery.telling_words(sample.captions, label_N)
    clusters = tuple(
        Cluster(telling[cluster] or "no common words", count, count / len(sample), share, noted(typical[cluster]))
        for cluster, count, share in metrics.cluster_shares(label_N, sample.kept_N)
    )
    # One cluster says nothing that the headline does not.
    return galleries if params.gallery and overall else (), clusters if len(clusters) > 1 else ()


def _nearest(
    points_ND: NDArray[np.float32], label_N: NDArray[np.int64], cluster: int, centre_D: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Rows of a cluster nearest to its centroid."""
    rows = np.flatnonzero(label_N == cluster)
    return np.asarray(rows[np.argsort(-(points_ND[rows] @ centre_D), kind="stable")][:_PER_CLUSTER], dtype=np.int64)


def _pairs(pool: Pool, features: str, candidates: Positions, size: int) -> tuple[Positions, list[str]]:
    """Dropped samples, each followed by its suppressor, and a note for each of them."""
    dropped, image, text = pool.take(candidates, ("suppressor", "suppression"), embeddings=True)
    if not len(candidates) or not size:
        return candidates[:0], []
    suppressors = integers(dropped, "suppressor", -1)
    by, by_image, by_text = pool.take(suppressors, ("kept",), embeddings=True)
    one, other = (metrics.join_features(*pair, features) for pair in ((image, text), (by_image, by_text)))
    similarity = np.einsum("nd,nd->n", one, other).astype(np.float64)
    rows = gallery.pick_pairs(suppressors, similarity, np.array(by["kept"].to_pylist(), dtype=bool), size)
    suppression = dropped["suppression"].to_pylist()
    notes: list[str] = []
    for row in rows.tolist():
        notes.append(
            f"dropped: cosine {words.number(similarity[row])} to its neighbour, which took "
            f"{words.number(suppression[row])} off its score"
        )
        notes.append("the neighbour")
    return np.stack([candidates[rows], suppressors[rows]], axis=1).reshape(-1), notes


def _pictures(pool: Pool, record: RunRecord, positions: Positions, max_pixels: int) -> dict[int, Picture]:
    """Position -> picture, each sample read once."""
    once, first = np.unique(positions, return_index=True)
    once = once[np.argsort(first)]
    table, _, _ = pool.take(once, _COLUMNS)
    parts = pool.part_of(once).tolist()
    sources = [
        Source(record.shards[part].url, offset, size)
        for part, offset, size in zip(parts, table["offset"].to_pylist(), table["size"].to_pylist(), strict=True)
    ]
    images = thumbnails(sources, max_pixels, _THUMBNAIL_BUDGET)
    return {
        position: _picture(row, record.score_name, image)
        for position, row, image in zip(once.tolist(), table.to_pylist(), images, strict=True)
    }


def _picture(row: dict[str, object], score_name: str, image: str) -> Picture:
    reason = str(row["reason"])
    forward, difficulty = row["forward_score"], row["difficulty"]
    return Picture(
        uid=gallery.shorten(str(row["uid"]), 64),
        shard=gallery.shorten(str(row["shard"]), 80),
        key=gallery.shorten(str(row["key"]), 80),
        caption=gallery.shorten(str(row["caption"] or "")),
        kept=bool(row["kept"]),
        scores=(
            (score_name, words.number(_float(difficulty))),
            ("with neighbours", words.number(_float(forward))),
            ("selection", words.number(_float(row["selection_score"]))),
        ),
        note="kept" if row["kept"] else f"dropped: {words.MEANINGS.get(reason, reason)}",
        image=image,
    )


def _float(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _with_note(picture: Picture, note: str) -> Picture:
    return Picture(**{**vars(picture), "note": note}) if note else picture
