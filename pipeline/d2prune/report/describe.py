"""What the counts of a survey mean, in words and short lists."""

from dataclasses import replace

import numpy as np

from d2prune import store
from d2prune.report import formatting
from d2prune.report.captions import shorten
from d2prune.report.page_data import DuplicateGroup, DuplicateSummary, Shifted
from d2prune.report.record import RunRecord
from d2prune.report.shifts import Property
from d2prune.report.suppression import REPRESENTED, SuppressedSummary, summarise
from d2prune.report.survey import Survey

_MAX_LOSSES = 8
_LOSSES_PER_PROPERTY = 3
_LOST, _KEPT = 8, 4
_MAX_INPUTS = 3


def made(record: RunRecord) -> tuple[str, ...]:
    """The input and the date of the page, in words."""
    inputs = [shorten(store.redact(url), 120) for url in record.input]
    more = len(inputs) - _MAX_INPUTS
    shown = ", ".join(inputs[:_MAX_INPUTS]) + (f" and {more} more" if more > 0 else "")
    shards = len(record.shard_urls)
    kind = ("tar" if record.has_images else "table part") + ("s" if shards != 1 else "")
    found = [f"Input: {shown} ({shards:,} {kind})"] if shown else []
    return (*found, f"Report made on {record.date}") if record.date else tuple(found)


def suppressed(survey: Survey) -> SuppressedSummary | None:
    """The samples that only suppression dropped, by cosine to their suppressor; None if there are none."""
    found = summarise(survey.cosine_S[survey.suppressed_S])
    return found if found.samples else None


def warning(found: SuppressedSummary | None, survey: Survey) -> str:
    """What a reader should know first; empty unless a large share has no near-duplicate."""
    if found is None or not found.is_large:
        return ""
    part = " (in the shards counted)" if survey.parts[0] < survey.parts[1] else ""
    return (
        f"{found.unlike:,} of the {found.samples:,} samples that only suppression dropped{part} "
        f"({formatting.percent(found.share, 0)}) have no near-duplicate: their cosine to the neighbour that "
        f"lowered their score most is below {REPRESENTED}. Their own scores were high enough to be kept. "
        "With a larger select.gamma_reverse only closer neighbours suppress each other."
    )


def shifted(survey: Survey) -> Shifted | None:
    """What was kept less, or more, often than the pool; None if nothing beyond chance."""
    tables = [_shorten(item) for item in survey.properties if item.largest]
    if not tables:
        return None
    lost = [
        (item.name, value)
        for item in survey.properties
        for value in sorted(
            (value for value in item.values if value.shift < 0), key=lambda value: value.shift
        )[:_LOSSES_PER_PROPERTY]
    ]
    lost.sort(key=lambda row: (row[1].shift, row[0], row[1].value))
    return Shifted(
        fraction=float(survey.kept_S.mean()),
        samples=len(survey),
        parts=survey.parts,
        lost=tuple(lost[:_MAX_LOSSES]),
        tables=tuple(tables),
    )


def _shorten(item: Property) -> Property:
    """The values to show: of a range of numbers all, otherwise the largest losses and gains."""
    if item.ordered:
        return item
    lost = [value for value in item.values if value.shift < 0][:_LOST]
    kept = [value for value in item.values if value.shift > 0][:_KEPT]
    return replace(item, values=(*lost, *kept))


def duplicates(
    survey: Survey, largest: tuple[DuplicateGroup, ...], by_dedup: bool
) -> DuplicateSummary | None:
    """The groups of duplicates; None if there are none."""
    groups = survey.groups
    if not len(groups):
        return None
    sizes = np.diff(groups.starts)
    number = np.concatenate([np.arange(len(groups)), np.repeat(np.arange(len(groups)), sizes)])
    members = np.concatenate([groups.keepers, groups.members])
    row = np.searchsorted(survey.positions_S, members)
    known = row < len(survey)
    known[known] = survey.positions_S[row[known]] == members[known]
    kept = number[known][survey.kept_S[row[known]]]
    return DuplicateSummary(
        groups=len(groups),
        samples=len(members),
        kept=len(kept),
        repeated=int((np.bincount(kept, minlength=len(groups)) > 1).sum()),
        by_dedup=by_dedup,
        largest=largest,
    )
