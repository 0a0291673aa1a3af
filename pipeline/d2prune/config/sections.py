"""Sections after embedding: `score`, `graph`, `select`, `write`, `report` and `ray`."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from d2prune.config.section import MAX_COUNT, MAX_SEED, Location, Number, Section, Text, Whole
from d2prune.d2.gamma import AUTO, EXPECTED, FORWARD_MULTIPLE, REVERSE_MULTIPLE, check_gamma
from d2prune.errors import UserError

MAX_WORKERS = 100_000
METHODS_ON_GRAPHS = ("d2", "forward", "facility_location")
MAX_LISTS = 2**31 - 1

Method = Literal[
    "d2",
    "random",
    "score",
    "forward",
    "moderate",
    "ccs",
    "k_center",
    "herding",
    "facility_location",
    "semdedup",
]


class ScoreConfig(Section):
    """How much each sample is wanted, before its neighbours are considered."""

    difficulty: Text = Field(
        default="clip_score",
        description="`clip_score`, a number of embed.fields, or an expression such as "
        "`0.5*clip_score + 0.5*aesthetic` (+ - * /, min, max, abs, sqrt; unusual names in backquotes). "
        "`s_clip_loss`, `norm_sim_2`, `norm_sim_inf` and `near_target` are computed from the embeddings. "
        "Higher = more wanted",
    )
    offset: Annotated[Number, Field(gt=-(2**22), lt=2**22)] | Literal["auto"] = Field(
        default="auto",
        description="number added to the score before it is clamped at 0 (`select.method: score` does not "
        "clamp). `auto`: minus the lowest score in the pool; of equal scores, what makes them 1",
    )

    reference_size: Whole = Field(
        default=32_768, ge=1, le=2**20, description="s_clip_loss: samples of the pool in one reference"
    )
    references: Whole = Field(
        default=5, ge=1, le=100, description="s_clip_loss: number of references; their scores are averaged"
    )
    temperature: Number = Field(
        default=0.01, ge=1e-4, le=1e4, description="s_clip_loss: temperature of the softmax over a reference"
    )
    seed: Whole = Field(default=0, ge=0, le=MAX_SEED, description="seed of the references")
    target: Location | None = Field(
        default=None,
        description="norm_sim_2, norm_sim_inf and near_target: image embeddings of the target set, an `.npy` "
        "[M, D] or a parquet file with a column `image_emb`. null: norm_sim_2 compares with a reference of "
        "the pool",
    )
    centroids: Location | None = Field(
        default=None,
        description="near_target: centroids of clusters of image embeddings, a file like `target`. The score "
        "is 1 for images whose nearest centroid is also the nearest of an image of the target, else 0",
    )


class GraphConfig(Section):
    """The nearest-neighbour graph along which scores propagate."""

    features: Literal["image", "text", "image+text"] = Field(
        default="image+text", description="embeddings that distances are computed on"
    )
    n_neighbors: Whole = Field(
        default=5,
        ge=0,
        le=1024,
        description="k: neighbours per sample, before the graph is made symmetric. 0: no graph, for methods "
        "that use none, such as `score` and `random`",
    )
    target_recall: Annotated[Number, Field(gt=0, le=1)] | None = Field(
        default=0.95,
        description="recall@k to reach; 1 or null: exact search, every row with every other, on a GPU if "
        "there is one that is faster",
    )
    nlist: Annotated[Whole, Field(ge=1, le=MAX_LISTS)] | None = Field(
        default=None, description="number of IVF lists; null: chosen from the size of the pool"
    )
    nprobe: Annotated[Whole, Field(ge=1, le=MAX_LISTS)] | None = Field(
        default=None, description="lists searched per sample, instead of `target_recall`"
    )
    seed: Whole = Field(
        default=0, ge=0, le=MAX_SEED, description="seed of the k-means sample and of the recall sample"
    )
    quantiser: Text = Field(
        default="auto",
        description="lists to search. `auto`: those of the latest graph with the same parameters in the "
        "work_dir, so that only what is new is searched, else new ones. `new`: trained on this pool. Or the "
        "graph that has them: the id of its run, its fingerprint, or `WORK_DIR/graph/FINGERPRINT`. "
        "FINGERPRINT may be that of the quantiser, too, which the log and the manifest state. With named "
        "lists, `graph.nlist` and `graph.nprobe` must be theirs or null, and `graph.seed` theirs",
    )
    model: Text | None = Field(
        default=None,
        description="name in embed.models of the model whose embeddings distances are computed on; null: the "
        "first",
    )

    @model_validator(mode="before")
    @classmethod
    def _replace_target_by_nprobe(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("nprobe") is not None:
            if values.get("target_recall") is not None:
                raise ValueError("expected target_recall or nprobe, not both")
            return {**values, "target_recall": None}
        return values


class DedupConfig(Section):
    """Duplicates to drop before the ranking: of each group, the sample of highest difficulty stays."""

    exact: bool = Field(
        default=False,
        description="drop samples whose image has the same bytes as another's (SHA-256; for tables, their "
        "column `sha256`)",
    )
    near: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="drop samples with at least this cosine to a neighbour in the graph, by its features; "
        "such as 0.95",
    )

    @property
    def applies(self) -> bool:
        """Whether any duplicates are dropped."""
        return self.exact or self.near is not None


class SelectConfig(Section):
    """How many samples to keep and how strongly neighbours interact.

    The budget is exactly one of `fraction`, `size` and `min_score`.
    """

    fraction: Annotated[Number, Field(gt=0, le=1)] | None = Field(
        default=None, description="fraction of the embedded samples to keep"
    )
    size: Annotated[Whole, Field(ge=1, le=MAX_COUNT)] | None = Field(
        default=None, description="number of samples to keep"
    )
    min_score: Annotated[Number, Field(gt=-(2**22), lt=2**22)] | None = Field(
        default=None, description="lowest selection score to keep"
    )
    cut: Literal["exact", "datacomp"] = Field(
        default="exact",
        description="samples at the end of `fraction`. `exact`: the fraction rounded down; of equal scores, "
        "the first samples are kept. `datacomp`: DataComp's rule, one sample more and all with its score",
    )
    groups: Text | None = Field(
        default=None,
        description="a text of embed.fields, or `shard`: every group keeps its share of the budget",
    )
    drop_score: Text | None = Field(
        default=None,
        description="score, written like score.difficulty, by which the lowest samples are dropped before "
        "the graph is built",
    )
    drop_fraction: Number = Field(
        default=0.0, ge=0, lt=1, description="beta: fraction of the samples that `drop_score` drops"
    )
    gamma_forward: float | str = Field(
        default=AUTO,
        description="gamma_f: a neighbour's weight in the forward pass is exp(-gamma_f * squared distance). "
        "A number, or a multiple of the graph's own scale: `4/median` is 4 divided by the median squared "
        f"distance of the edges. `auto`: `{FORWARD_MULTIPLE:g}/median`. The paper's value is 1",
    )
    gamma_reverse: float | str = Field(
        default=AUTO,
        description=f"gamma_r: the same for the reverse pass. `auto`: `{REVERSE_MULTIPLE:g}/median`. "
        "The paper's value for DataComp is 1",
    )
    method: Method = Field(
        default="d2",
        description="`d2`, or a baseline: `random`, `score` and `forward` at any scale; `moderate`, `ccs`, "
        "`k_center`, `herding`, `facility_location` and `semdedup` in the memory of one worker",
    )
    seed: Whole = Field(default=0, ge=0, le=MAX_SEED, description="seed of the randomised methods")

    @field_validator("gamma_forward", "gamma_reverse", mode="before")
    @classmethod
    def _check_gamma(cls, gamma: Any) -> Any:
        try:
            return gamma if gamma == AUTO else check_gamma("gamma", gamma, FORWARD_MULTIPLE)
        except UserError:
            raise ValueError(f"expected {EXPECTED}") from None

    @model_validator(mode="after")
    def _check_budget(self) -> "SelectConfig":
        given = [name for name in ("fraction", "size", "min_score") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected exactly one of fraction, size, min_score; found {', '.join(given) or 'none'}"
            )
        if (self.drop_score is None) != (self.drop_fraction == 0):
            raise ValueError("expected drop_score and drop_fraction together")
        if self.groups is not None and self.min_score is not None:
            raise ValueError("groups share a fraction or a size; expected no min_score")
        if self.cut == "datacomp" and (self.fraction is None or self.groups is not None):
            raise ValueError("cut: datacomp needs a fraction; expected no size, min_score or groups")
        if self.min_score is not None and self.method not in ("d2", "forward", "score"):
            raise ValueError(
                f"method {self.method} computes no score; expected fraction or size, not min_score"
            )
        return self


class WriteConfig(Section):
    """The output tars."""

    samples_per_shard: Whole = Field(
        default=10_000, ge=1, le=MAX_COUNT, description="samples in each output tar except the last"
    )
    keep_executable_members: bool = Field(
        default=False,
        description="keep the names of members that a data loader would execute (`.pyd`, `.pickle`, `.pth`, "
        "`.eps`, ...; also `.gz`); default: their extension gets the suffix `-unsafe`",
    )
    stable: bool = Field(
        default=False,
        description="keep tars between the runs of a schedule: a sample stays in its tar, tars that did not "
        "change are not written again, and `latest.json` lists the set. Needs an output that ends in "
        "`{run_id}`",
    )


class ReportConfig(Section):
    """The HTML report."""

    gallery: Whole = Field(
        default=24, ge=0, le=200, description="number of thumbnails of kept samples, and of dropped samples"
    )


class RayConfig(Section):
    """Where the work runs. Never changes the result."""

    address: Text | None = Field(
        default=None, description="address of a running Ray cluster; null: a local Ray for this run"
    )
    workers: Annotated[Whole, Field(ge=1, le=MAX_WORKERS)] | None = Field(
        default=None, description="number of workers; null: as many as the cores or GPUs allow"
    )
    num_gpus: Number = Field(
        default=0,
        ge=0,
        le=1_024,
        description="GPUs per worker of embed and of the graph search; 0.5: two workers share a GPU",
    )

    @field_validator("num_gpus")
    @classmethod
    def _check_gpu_share(cls, num_gpus: float) -> float:
        if num_gpus > 1 and num_gpus != int(num_gpus):
            raise ValueError("expected a fraction of one GPU, or a whole number of GPUs")
        return num_gpus
