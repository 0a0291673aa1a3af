"""What the page shows, as plain records: no files, no HTML.

`collect` returns one `ReportData`, which is all that the page is rendered from. Its arrays are small
(histogram bins, points of a random sample), so it stays in the low megabytes. Text is shortened but
not escaped; the template escapes it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune.report.increment_data import Increment
from d2prune.report.shifts import Property, Value
from d2prune.report.suppression import SuppressedSummary
from d2prune.report.trend import Point


@dataclass(frozen=True)
class ReasonCount:
    """Samples that one stage rejected or dropped for one reason."""

    stage: str
    reason: str
    count: int
    meaning: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class FlowStep:
    """Samples that reached a stage; `lost` were removed between the previous step and this one."""

    label: str
    count: int
    lost: int = 0
    lost_label: str = ""


@dataclass(frozen=True)
class Histogram:
    """Counts of kept and dropped samples per bin; the outer bins include values outside the edges.

    Attributes:
        edges: float64 [B + 1], ascending.
        kept: int64 [B].
        dropped: int64 [B].
    """

    edges: NDArray[np.float64]
    kept: NDArray[np.int64]
    dropped: NDArray[np.int64]


@dataclass(frozen=True)
class Curve:
    """Mean score and coverage gap against the fraction kept, for one order of the samples.

    Attributes:
        label: name of the order.
        fraction: float64 [F], in (0, 1].
        mean_score: float64 [F], mean score of the kept samples.
        coverage: float64 [F], mean distance to the nearest kept sample.
        copies: float64 [F], share of the kept samples that have a kept near-copy; nan without a graph.
    """

    label: str
    fraction: NDArray[np.float64]
    mean_score: NDArray[np.float64]
    coverage: NDArray[np.float64]
    copies: NDArray[np.float64]


@dataclass(frozen=True)
class Here:
    """What the run itself keeps, in the measures of `Curve`."""

    mean_score: float
    coverage: float
    copies: float


@dataclass(frozen=True)
class FractionRow:
    """One row of the table of fractions; `is_current` marks the fraction nearest to the run's own."""

    label: str
    samples: int
    score: str
    coverage: str
    copies: str
    is_current: bool


@dataclass(frozen=True)
class Metric:
    """One measure of the pool, of the kept samples and, where it helps, of a random choice as large."""

    name: str
    meaning: str
    pool: str
    kept: str
    random: str = ""


@dataclass(frozen=True)
class SampleCard:
    """One sample as the page shows it.

    Attributes:
        uid: its uid.
        shard: its input shard.
        key: its key in the shard.
        caption: its caption, on one line.
        kept: whether it was kept.
        scores: (name, value) of each score.
        note: its outcome and the reason for it.
        image: a data URI; empty if the image could not be read.
    """

    uid: str
    shard: str
    key: str
    caption: str
    kept: bool
    scores: tuple[tuple[str, str], ...]
    note: str
    image: str


@dataclass(frozen=True)
class Gallery:
    """Samples under one heading; if `pairs`, each second card suppressed the one before it."""

    title: str
    text: str
    cards: tuple[SampleCard, ...]
    empty_text: str
    pairs: bool = False


@dataclass(frozen=True)
class DuplicateGroup:
    """A group of duplicates: its keeper, then some of its other samples; `size` counts all of them."""

    size: int
    cards: tuple[SampleCard, ...]


@dataclass(frozen=True)
class DuplicateSummary:
    """The groups of duplicates.

    Attributes:
        groups: number of groups.
        samples: samples in them, keepers included.
        kept: kept samples in them.
        repeated: groups of which more than one sample was kept.
        by_dedup: whether the `dedup` stage found them; otherwise they are near-copies in the graph.
        largest: the largest groups.
    """

    groups: int
    samples: int
    kept: int
    repeated: int
    by_dedup: bool
    largest: tuple[DuplicateGroup, ...]


@dataclass(frozen=True)
class Shifted:
    """What the selection kept less, or more, often than the pool.

    Attributes:
        fraction: kept share of the samples counted.
        samples: samples counted.
        parts: shards counted, of how many.
        lost: name of the property and value of the largest losses.
        tables: every property with the values to show, the one with the largest shift first.
    """

    fraction: float
    samples: int
    parts: tuple[int, int]
    lost: tuple[tuple[str, Value], ...]
    tables: tuple[Property, ...]


@dataclass(frozen=True)
class Cluster:
    """A k-means cluster of the random sample.

    Attributes:
        words: the most distinctive words of its captions.
        count: its samples.
        share: its share of the random sample.
        kept_share: the share of it that was kept.
        cards: the samples nearest to its centroid.
    """

    words: str
    count: int
    share: float
    kept_share: float
    cards: tuple[SampleCard, ...]


@dataclass(frozen=True)
class ReportData:
    """Everything the page shows.

    Attributes:
        title: the heading.
        made: input and date of the run, in words.
        warning: what a reader should know first; empty if there is nothing.
        lead: the paragraph below it.
        headline: (label, value, note) of each number at the top.
        flow: samples per stage.
        reasons: rejected and dropped samples by stage and reason.
        score_label: name of the score that difficulty was computed from.
        method: what ranked the pool: `d2`, or another `select.method`.
        difficulty: histogram of that score.
        clamped: samples that the histogram leaves out since their score is below the lowest one that
            counts, and how many of these were kept.
        selection: histogram of the selection score.
        clamp_limit: that lowest score.
        threshold: lowest selection score kept; None if nothing was kept or dropped, or groups have their own.
        map_points: uint16 [M, 2], coordinates of samples on the map; M is 0 if there is none.
        map_kept: bool [M].
        clusters: lowest kept share first.
        shifted: what the selection kept less or more of; None if nothing stands out.
        suppressed: the samples that only suppression dropped; None if there are none.
        unlike: those of them that differ most from their suppressor.
        duplicates: groups of duplicates; None if there are none.
        galleries: in the order shown.
        metrics: rows of the table of measures.
        here: what the run itself keeps; None if nothing.
        curves: one per order of the samples, the run's ranking first.
        fraction_rows: the first curve as a table.
        fraction: share of the pool that was kept.
        embedded: samples in the pool.
        sampled: samples in the random sample.
        graph: (label, value) of the graph.
        timings: (stage, time, throughput).
        parameters: (stage, ((name, value), ...)).
        versions: (package, version).
        locations: (label, URL or command).
        train_command: empty if there is none.
        reshard_command: empty if there is none.
        has_images: whether the pool has images.
        increment: what changed since the run that this one continues; None if it continues none.
        moved: some of the samples that entered or left the selection since then.
        trend: this run and those that it continues, oldest first; empty if the run has no output.
    """

    title: str
    made: tuple[str, ...]
    lead: str
    warning: str
    headline: tuple[tuple[str, str, str], ...]
    flow: tuple[FlowStep, ...]
    reasons: tuple[ReasonCount, ...]
    score_label: str
    method: str
    difficulty: Histogram
    clamped: tuple[int, int]
    clamp_limit: str
    selection: Histogram
    threshold: float | None
    map_points: NDArray[np.uint16]
    map_kept: NDArray[np.bool_]
    clusters: tuple[Cluster, ...]
    shifted: Shifted | None
    suppressed: SuppressedSummary | None
    unlike: Gallery
    duplicates: DuplicateSummary | None
    galleries: tuple[Gallery, ...]
    metrics: tuple[Metric, ...]
    here: Here | None
    curves: tuple[Curve, ...]
    fraction_rows: tuple[FractionRow, ...]
    fraction: float
    embedded: int
    sampled: int
    graph: tuple[tuple[str, str], ...]
    timings: tuple[tuple[str, str, str], ...]
    parameters: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    versions: tuple[tuple[str, str], ...]
    locations: tuple[tuple[str, str], ...]
    train_command: str
    reshard_command: str
    has_images: bool
    increment: Increment | None
    moved: tuple[Gallery, ...]
    trend: tuple[Point, ...]
