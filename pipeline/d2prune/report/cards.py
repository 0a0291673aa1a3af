"""Samples as the page shows them: read once each, with image, scores and outcome."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from d2prune.parts.reader import Parts
from d2prune.report import formatting
from d2prune.report.captions import shorten
from d2prune.report.outcome import NOT_RANKED, describe_outcome
from d2prune.report.page_data import SampleCard
from d2prune.report.record import RunRecord
from d2prune.report.survey import group_name
from d2prune.report.thumbnails import ImageSource, make_thumbnails

_COLUMNS = (
    "uid", "shard", "key", "caption", "offset", "size", "difficulty", "forward_score", "selection_score",
    "kept", "reason", "suppressed_by",
)  # fmt: skip
_THUMBNAIL_BUDGET = 3_600_000
"""Characters that all thumbnails of a page may take together."""

Cards = dict[int, SampleCard]
"""Canonical position -> card."""


def read_cards(
    pool: Parts,
    record: RunRecord,
    positions: NDArray[np.int64],
    max_pixels: int,
    threshold: Callable[[str], float],
) -> Cards:
    """Read samples; thumbnails are made in the order of `positions` until the page is full.

    Args:
        pool: where rows are read from.
        record: the run.
        positions: int64, canonical positions; repeated ones are read once.
        max_pixels: larger images are not decoded.
        threshold: the lowest selection score kept of a group, by its name; see `Survey.thresholds`.
    """
    once, first = np.unique(positions, return_index=True)
    once = once[np.argsort(first)]
    groups_by = record.select.params.get("groups")
    columns = _COLUMNS if groups_by in (None, *_COLUMNS) else (*_COLUMNS, groups_by)
    rows = pool.take_merged(once, columns).to_pylist()
    images: Iterable[str] = [""] * len(rows)
    if record.has_images:
        parts = pool.spans.part_of(once).tolist()
        sources = [
            ImageSource(record.shard_urls[part], row["offset"], row["size"])
            for part, row in zip(parts, rows, strict=True)
        ]
        images = make_thumbnails(sources, max_pixels, _THUMBNAIL_BUDGET)
    return {
        position: _make_card(row, record, threshold(group_name(row.get(groups_by))), image)
        for position, row, image in zip(once.tolist(), rows, images, strict=True)
    }


def pick(cards: Cards, positions: NDArray[np.int64]) -> tuple[SampleCard, ...]:
    """Return samples in the given order."""
    return tuple(cards[position] for position in positions.tolist())


def annotate(card: SampleCard, note: str, cosine: float | None = None) -> SampleCard:
    """Return a sample with another note, and the cosine of a pair as a further score."""
    scores = card.scores if cosine is None else (*card.scores, ("cosine", formatting.number(cosine)))
    return replace(card, note=note, scores=scores)


def _make_card(row: dict[str, object], record: RunRecord, threshold: float, image: str) -> SampleCard:
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
            (record.score_name, formatting.score(difficulty, record.score_offset, record.is_clamped)),
            *(
                (name, formatting.number(value))
                for name, value in (("forward", forward), ("selection", selection))
                if value is not None
            ),
        ),
        note=describe_outcome(reason, forward, threshold, record.method, _keeper_uid(row)),
        image=image,
    )


def _keeper_uid(row: dict[str, object]) -> str | None:
    return shorten(str(row["suppressed_by"]), 64) if row["suppressed_by"] else None


def _as_float(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
