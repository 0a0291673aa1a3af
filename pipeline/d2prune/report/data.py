"""What the report is told and what it shows, as plain records: no files, no HTML.

`RunRecord` goes in (manifests, shards, what was written); `ReportData` comes out of `collect` and
is all that the page knows. Arrays are small (bins, points of a sample), so a whole `ReportData`
stays in the low megabytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from d2prune.store import schemas
from d2prune.store.artifacts import Manifest


class Shard(Protocol):
    """An input shard, as far as the report needs it."""

    @property
    def url(self) -> str:
        """Where the tar or table lies."""
        ...


@dataclass(frozen=True)
class Written:
    """What the write stage left.

    Attributes:
        url: folder of the output.
        shards: number of output tars.
        samples: samples in them.
        train_command: how to train on them; empty where there is none.
        reshard_command: how to make tars of them; empty where that is done.
    """

    url: str
    shards: int
    samples: int
    train_command: str = ""
    reshard_command: str = ""


@dataclass(frozen=True)
class RunRecord:
    """A run to report on.

    Attributes:
        work_dir: where the artifacts lie.
        embed: the embed artifact; unit i belongs to input shard i.
        graph: the graph artifact; its facts hold recall and size.
        select: the select artifact; unit i is row-aligned with embed's unit i.
        shards: input shards in canonical order.
        has_pictures: whether they are tars; tables hold none.
        written: the output; None where the run stopped before.
        score_name: what `difficulty` was made from.
        score_offset: what was added to the score to make `difficulty`; the page shows the score without it.
        features: what distances are measured on: `image`, `text` or `image+text`.
        embeddings: the file of each embed part that holds them.
        timings: stage -> seconds, of this run; stages that were skipped are absent.
        parameters: stage -> name -> value; default: what the manifests recorded.
    """

    work_dir: str
    embed: Manifest
    graph: Manifest
    select: Manifest
    shards: Sequence[Shard]
    has_pictures: bool = True
    written: Written | None = None
    score_name: str = "clip_score"
    score_offset: float = 0.0
    features: str = "image+text"
    embeddings: str = schemas.embeddings_file()
    timings: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, Mapping[str, object]] | None = None


@dataclass(frozen=True)
class ReportParams:
    """What changes the page.

    Attributes:
        gallery: thumbnails of kept and of dropped samples each; 0: none.
        sample_rows: samples whose embeddings are read, for the map, clusters and measures.
        sample_groups: at most so many row groups of embeddings are read for them.
        queries: samples that ask for their nearest neighbour in the measures.
        map_points: points drawn.
        clusters: at most.
        max_pixels: larger pictures are not decoded.
        seed: of every random choice.
    """

    gallery: int = 24
    sample_rows: int = 10_000
    sample_groups: int = 64
    queries: int = 2_000
    map_points: int = 5_000
    clusters: int = 12
    max_pixels: int = 100_000_000
    seed: int = 0


@dataclass(frozen=True)
class Loss:
    """Samples that left the flow at one stage for one reason."""

    stage: str
    reason: str
    count: int
    meaning: str


@dataclass(frozen=True)
class FlowStep:
    """Samples that arrived at a stage; `lost` left between the step before and this one."""

    label: str
    count: int
    lost: int = 0
    lost_label: str = ""


@dataclass(frozen=True)
class Histogram:
    """Counts of kept and dropped samples per bin; values outside the edges are counted in the outer bins.

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
    """Kept score and coverage against the fraction kept, for one order of the sample.

    Attributes:
        label: the order: D2, by score, or random.
        fraction: float64 [F].
        mean_score: float64 [F], mean difficulty of the kept.
        coverage: float64 [F], mean distance to the nearest kept sample.
    """

    label: str
    fraction: NDArray[np.float64]
    mean_score: NDArray[np.float64]
    coverage: NDArray[np.float64]


@dataclass(frozen=True)
class FractionRow:
    """The D2 curve at one fraction, as a table shows it; `here` marks the fraction nearest to the run's."""

    label: str
    samples: int
    score: str
    coverage: str
    here: bool


@dataclass(frozen=True)
class Metric:
    """One measure of the pool and of what was kept; `random` is a random choice of the same size, if it says more."""

    name: str
    meaning: str
    pool: str
    kept: str
    random: str = ""


@dataclass(frozen=True)
class Picture:
    """One sample as shown: text for people, already shortened but not escaped."""

    uid: str
    shard: str
    key: str
    caption: str
    kept: bool
    scores: tuple[tuple[str, str], ...]
    note: str
    image: str
    """A data URI, or empty where the picture could not be read."""


@dataclass(frozen=True)
class Gallery:
    """Pictures with a heading; in a gallery of pairs each second one suppressed the one before."""

    title: str
    text: str
    pictures: tuple[Picture, ...]
    empty: str
    pairs: bool = False


@dataclass(frozen=True)
class Cluster:
    """A k-means cluster of the sample: its most telling words, its share of the sample and the share of it kept."""

    words: str
    count: int
    share: float
    kept_share: float
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class ReportData:
    """Everything the page shows.

    Attributes:
        map_points: float32 [M, 2], PCA of the sample's features.
        map_kept: bool [M].
        has_pictures: whether the pool holds any.
        map_variance: share of the variance that the two axes carry.
    """

    title: str
    lead: str
    headline: tuple[tuple[str, str, str], ...]
    flow: tuple[FlowStep, ...]
    losses: tuple[Loss, ...]
    score_label: str
    difficulty: Histogram
    selection: Histogram
    threshold: float | None
    map_points: NDArray[np.float32]
    map_kept: NDArray[np.bool_]
    map_variance: tuple[float, float]
    clusters: tuple[Cluster, ...]
    galleries: tuple[Gallery, ...]
    metrics: tuple[Metric, ...]
    curves: tuple[Curve, ...]
    fraction_rows: tuple[FractionRow, ...]
    fraction: float
    embedded: int
    sampled: int
    graph: tuple[tuple[str, str], ...]
    timings: tuple[tuple[str, str, str], ...]
    parameters: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    versions: tuple[tuple[str, str], ...]
    output: tuple[tuple[str, str], ...]
    train_command: str
    reshard_command: str = ""
    has_pictures: bool = True
