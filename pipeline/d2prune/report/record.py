"""What the report is made from: one run's artifacts, and the parameters of the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from d2prune.knn.feature_kind import FeatureKind
from d2prune.parts import files
from d2prune.stage.earlier import COMPARED, EarlierRun
from d2prune.store.artifacts import Manifest


@dataclass(frozen=True)
class WrittenOutput:
    """What the write stage produced.

    Attributes:
        url: the output folder.
        shards: number of output tars.
        samples: number of samples written.
        train_command: trains on the output; empty if the run wrote no tars.
        reshard_command: makes tars of the subset; empty if the run wrote them itself.
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
        work_dir: URL of the folder with the run's artifacts.
        embed: the embed artifact; unit i belongs to input shard i.
        graph: the graph artifact; its facts hold recall and size.
        select: the select artifact; unit i is row-aligned with unit i of `embed`.
        shard_urls: of the input shards, in canonical order.
        has_images: whether the input is tars; tables hold no images.
        written: the output; None if the run stopped before `write`.
        score_name: the score that `difficulty` was computed from.
        is_clamped: whether the offset was given, so that scores below -offset count as -offset.
        score_offset: was added to the score to give `difficulty`; the page shows the score without it.
        method: what ranked the pool: `d2`, or another `select.method`.
        features: the embeddings that distances are measured on.
        embeddings_file: the file of each embed part that holds them.
        timings: stage -> seconds spent in this run; stages that were skipped are absent.
        parameters: stage -> name -> value.
        dedup: the dedup artifact; None if the run drops no duplicates.
        input: the input as it was configured.
        date: when the page was made; empty: not shown.
        rank: the rank artifact, whose facts hold gamma as numbers; None: not known.
        rescore: the rescore artifact; None if the run has none.
        run_id: of the output; empty if the run wrote none.
        earlier: the run that this one continues; None if it continues none.
    """

    work_dir: str
    embed: Manifest
    graph: Manifest
    select: Manifest
    shard_urls: Sequence[str]
    has_images: bool = True
    written: WrittenOutput | None = None
    score_name: str = "clip_score"
    score_offset: float = 0.0
    is_clamped: bool = True
    method: str = "d2"
    features: FeatureKind = "image+text"
    embeddings_file: str = files.EMBEDDINGS
    timings: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    dedup: Manifest | None = None
    input: Sequence[str] = ()
    date: str = ""
    rank: Manifest | None = None
    rescore: Manifest | None = None
    run_id: str = ""
    earlier: EarlierRun | None = None

    @property
    def manifests(self) -> Mapping[str, Manifest]:
        """Stage -> its artifact, of those that decide the selection."""
        found = {name: getattr(self, name) for name in COMPARED}
        return {name: manifest for name, manifest in found.items() if manifest is not None}


@dataclass(frozen=True)
class ReportParams:
    """Everything besides the artifacts that changes the page.

    Attributes:
        gallery: thumbnails of kept samples, and as many of dropped ones; 0: no galleries.
        sample_rows: size of the random sample that clusters and measures are computed on.
        sample_groups: most row groups of embeddings that are read for it.
        survey_rows: most samples whose captions, decisions and edges are counted; of a larger pool,
            whole shards are drawn at random.
        examples: rejected samples listed for each reason.
        queries: samples whose distance to the nearest kept sample is measured; these are on the map, too.
        map_points: most points on the map if the explorer has computed a larger one.
        clusters: most clusters.
        max_pixels: larger images are not decoded.
        seed: seed of every random choice.
    """

    gallery: int = 24
    sample_rows: int = 10_000
    sample_groups: int = 64
    survey_rows: int = 1_000_000
    examples: int = 3
    queries: int = 2_000
    map_points: int = 5_000
    clusters: int = 12
    max_pixels: int = 100_000_000
    seed: int = 0
