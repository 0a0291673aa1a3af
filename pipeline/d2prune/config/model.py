"""The one configuration model: what a user writes in `run.yaml`, checked before anything starts.

Every section is a small pydantic model; unknown keys fail with the nearest known name. Stages do
not see this model: each gets its own frozen params (only what changes the result), so `ray` never
enters a fingerprint.
"""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from d2prune.config import file, model_names
from d2prune.errors import UserError
from d2prune.scores import expression
from d2prune.store import schemas

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

# Numbers that every pool's samples have.
_SCORES = ("clip_score", "width", "height")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EmbedConfig(_Section):
    """How images and captions become embeddings. Tables of embeddings use `fields` and `max_reject_rate` only."""

    model: str | None = Field(
        default=None,
        description="an open_clip architecture, `hf-hub:` name, or `demo` (for trying out only); needed for tars",
    )
    pretrained: str | None = Field(
        default=None, description="a tag open_clip knows for the model, or a checkpoint's path"
    )
    models: dict[str, str] = Field(
        default={},
        description="several models in one pass over the pictures, instead of `model` and `pretrained`: "
        "`[ViT-B-32/openai, ViT-L-14/openai]`, called b32 and l14, or `{NAME: ARCHITECTURE/TAG}`; each gives the score "
        "`clip_NAME`, and clip_score is that of the first",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="auto: bf16 on a GPU that has it, fp32 on a CPU"
    )
    resize: Literal["exact", "fast"] = Field(
        default="exact",
        description="exact: open_clip's pixels; fast: nearly the same in two thirds of the time",
    )
    decode: Literal["local", "remote"] = Field(
        default="local",
        description="where pictures are decoded. local: on the model's machine; remote: also on machines without a "
        "GPU, for GPUs with too few cores beside them",
    )
    image_timeout: float = Field(
        default=30, gt=0, description="seconds of processor time after which a picture is rejected"
    )
    max_pixels: int = Field(
        default=100_000_000, gt=0, description="larger images are rejected before decoding"
    )
    max_reject_rate: float = Field(
        default=0.2, ge=0, le=1, description="a run that rejects a larger share fails"
    )
    fields: dict[str, Literal["number", "text"]] = Field(
        default={},
        description="json values (tars) or columns (tables) to carry along, as scores or groups, e.g. "
        "{aesthetic: number, lang: text}",
    )
    batch_size: int | Literal["auto"] = Field(
        default=64,
        description="samples per forward pass; auto: grows while that makes the model faster and fits its memory; the "
        "last bits of embeddings then vary from run to run",
    )
    compile: bool = Field(
        default=False,
        description="compile the models first (torch.compile), which pays on long runs; needs a C++ compiler, and on a "
        "GPU Triton",
    )

    @field_validator("fields")
    @classmethod
    def _new_names(cls, fields: dict[str, str]) -> dict[str, str]:
        taken = fields.keys() & {*schemas.samples().names, *schemas.embeddings(1).names}
        if taken:
            raise ValueError(f"expected names that no column has yet; {', '.join(sorted(taken))} is taken")
        return fields

    @field_validator("batch_size", mode="before")
    @classmethod
    def _number_or_auto(cls, size: Any) -> Any:
        # The error of a union of types names each of them.
        if size != "auto" and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise ValueError("expected a whole number from 1 on, or auto")
        return size

    @field_validator("models", mode="before")
    @classmethod
    def _named(cls, models: Any) -> Any:
        if not isinstance(models, list | dict):
            raise ValueError(
                "expected a list such as [ViT-B-32/openai, ViT-L-14/openai], or {NAME: ARCHITECTURE/TAG}"
            )
        return model_names.named(models) if isinstance(models, list) else models

    @model_validator(mode="after")
    def _model_or_models(self) -> "EmbedConfig":
        model_names.check(self.models)
        if self.compile and self.batch_size == "auto":
            raise ValueError("expected a number as batch_size: compile makes a model for batches of one size")
        if self.models and (self.model or self.pretrained):
            raise ValueError("expected model (with pretrained) or models, not both")
        for column in map(schemas.score_column, self.models):
            if column in self.fields:
                raise ValueError(
                    f"fields and models both make a column {column}; expected another name for one of them"
                )
        return self

    @property
    def named_models(self) -> tuple[tuple[str, str, str | None], ...]:
        """(name, model, pretrained) of all models, in order; the name is empty where there is only `model`."""
        if self.model is not None:
            return (("", self.model, self.pretrained),)
        return tuple((name, *model_names.split(text)) for name, text in self.models.items())


class FilterConfig(_Section):
    """Samples of tars to leave out before anything is embedded; all off.

    DataComp's basic baseline: 3, 6, 200, 3 and en.
    """

    min_words: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="fewest words of a caption"
    )
    min_characters: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="fewest characters of a caption"
    )
    min_image_side: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="fewest pixels of an image's shorter side"
    )
    max_aspect_ratio: Annotated[float, Field(ge=1)] | None = Field(
        default=None, description="an image's longer side over its shorter one, at most"
    )
    language: str | None = Field(
        default=None,
        description="code of the language that captions must be in, such as en, by fastText's lid.176; needs "
        "`d2prune[language]`",
    )


class ColumnsConfig(_Section):
    """What tables of embeddings call their columns and arrays; `auto`: as DataComp and clip-retrieval do."""

    image_emb: str | None = Field(
        default="auto", description="image embeddings, e.g. l14_img; null: leave them out"
    )
    text_emb: str | None = Field(
        default="auto", description="text embeddings, e.g. l14_txt; null: leave them out"
    )
    clip_score: str | None = Field(
        default="auto", description="similarity of image and text; null: the cosine of their embeddings"
    )
    uid: str | None = Field(
        default="auto", description="32 hex digits; null: a hash of embeddings and caption"
    )
    caption: str | None = Field(default="auto", description="the caption; null: none")


class ScoreConfig(_Section):
    """What makes a sample wanted, before the graph has its say."""

    difficulty: str = Field(
        default="clip_score",
        description="clip_score, a number of embed.fields, or an expression such as `0.5*clip_score + 0.5*aesthetic` "
        "(+ - * /, min, max, abs, sqrt; odd names in backquotes); higher = more wanted",
    )
    offset: float | Literal["auto"] = Field(
        default="auto", description="added before clamping at 0; auto: minus the pool's lowest score"
    )


class GraphConfig(_Section):
    """The nearest-neighbour graph that messages travel on."""

    features: Literal["image", "text", "image+text"] = Field(
        default="image+text", description="what distance is measured on"
    )
    n_neighbors: int = Field(
        default=5, ge=1, le=1024, description="k: neighbours per sample before symmetrising"
    )
    target_recall: float | None = Field(
        default=0.95, gt=0, le=1, description="recall@k to reach; null: exact search"
    )
    nlist: int | None = Field(
        default=None, gt=0, description="number of IVF lists; default from the pool's size"
    )
    nprobe: int | None = Field(
        default=None, gt=0, description="lists searched per sample, instead of target_recall"
    )
    seed: int = Field(default=0, ge=0, description="of the k-means sample and of the recall samples")
    model: str | None = Field(
        default=None,
        description="the name of one of embed.models, whose embeddings distances are measured on; default: the first",
    )

    @model_validator(mode="before")
    @classmethod
    def _nprobe_replaces_the_target(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("nprobe") is not None:
            if values.get("target_recall") is not None:
                raise ValueError("expected target_recall or nprobe, not both")
            return {**values, "target_recall": None}
        return values


class SelectConfig(_Section):
    """How messages weigh and how much is kept. Give one of fraction, size, min_score."""

    fraction: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="share of the embedded samples"
    )
    size: Annotated[int, Field(gt=0)] | None = Field(default=None, description="number of samples")
    min_score: float | None = Field(default=None, description="lowest selection score to keep")
    groups: str | None = Field(
        default=None, description="a text of embed.fields, or shard: each group gets its share"
    )
    drop_score: str | None = Field(
        default=None, description="score, as score.difficulty, whose lowest share is cut off before the graph"
    )
    drop_fraction: float = Field(default=0.0, ge=0, lt=1, description="beta: the share that is cut off")
    gamma_forward: float = Field(default=1.0, ge=0, description="gamma_f: kernel width of the forward pass")
    gamma_reverse: float = Field(default=1.0, ge=0, description="gamma_r: kernel width of the reverse pass")
    method: Method = Field(
        default="d2",
        description="`d2`, or to compare with: `random`, `score`, `forward` at any scale; `moderate`, `ccs`, "
        "`k_center`, `herding`, `facility_location`, `semdedup` in one worker",
    )
    seed: int = Field(default=0, ge=0, description="of the methods that draw lots")

    @model_validator(mode="after")
    def _one_budget(self) -> "SelectConfig":
        given = [name for name in ("fraction", "size", "min_score") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected exactly one of fraction, size, min_score; got {', '.join(given) or 'none'}"
            )
        if (self.drop_score is None) != (self.drop_fraction == 0):
            raise ValueError("expected drop_score and drop_fraction together")
        if self.groups is not None and self.min_score is not None:
            raise ValueError("groups share a fraction or size, not min_score")
        if self.min_score is not None and self.method not in ("d2", "forward", "score"):
            raise ValueError(
                f"method {self.method} ranks without a score; expected fraction or size, not min_score"
            )
        return self


class WriteConfig(_Section):
    """The shape of the output."""

    samples_per_shard: int = Field(
        default=10_000, gt=0, description="samples in each output tar but the last"
    )


class ReportConfig(_Section):
    """The HTML report."""

    gallery: int = Field(
        default=24, ge=0, le=200, description="thumbnails shown of kept and of dropped samples each"
    )


class RayConfig(_Section):
    """Where the work runs; never changes the result."""

    address: str | None = Field(
        default=None, description="a running cluster; default: a local Ray for this run"
    )
    workers: int | None = Field(
        default=None, gt=0, description="workers side by side; default: the cluster's cores or GPUs"
    )
    num_gpus: float = Field(
        default=0,
        ge=0,
        description="GPUs per worker of embed and of the graph's searches; 0.5: two workers share one",
    )

    @field_validator("num_gpus")
    @classmethod
    def _whole_above_one(cls, num_gpus: float) -> float:
        if num_gpus > 1 and num_gpus != int(num_gpus):
            raise ValueError("expected a share of one GPU, or a whole number")
        return num_gpus


class RunConfig(_Section):
    """A whole run."""

    input: str | list[str] = Field(
        description="tars, or tables of embeddings: a folder, a glob, braces, or a list of them; see inputs.md"
    )
    work_dir: str = Field(description="where artifacts lie; keep it to resume and to try other fractions")
    output: str = Field(
        description="where the filtered shards go; one folder per selection. `s3://b/out/{run_id}`: each run makes its "
        "own folder there, and `latest.json` beside them names the newest"
    )
    embed: EmbedConfig = EmbedConfig()
    filter: FilterConfig = FilterConfig()
    columns: ColumnsConfig = ColumnsConfig()
    score: ScoreConfig = ScoreConfig()
    graph: GraphConfig = GraphConfig()
    select: SelectConfig
    write: WriteConfig = WriteConfig()
    report: ReportConfig = ReportConfig()
    ray: RayConfig = RayConfig()

    @model_validator(mode="after")
    def _scores_can_be_read(self) -> "RunConfig":
        """A mistyped expression is found here, not after hours of embedding."""
        for option, text in (
            ("score.difficulty", self.score.difficulty),
            ("select.drop_score", self.select.drop_score),
        ):
            if text is not None and text not in self.embed.fields:
                try:
                    parsed = expression.parse(text, option)
                except UserError as error:
                    raise ValueError(str(error)) from error
                self._are_scores(parsed.columns, option)
        return self

    def _are_scores(self, names: Sequence[str], option: str) -> None:
        known = [*_SCORES, *map(schemas.score_column, self.embed.models)]
        known += [name for name, kind in self.embed.fields.items() if kind == "number"]
        for name in names:
            if name in known or name in schemas.samples().names:
                continue
            if name in self.embed.fields:
                raise ValueError(f"{option}: {name} is a text in embed.fields; expected a number")
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            hint = f"did you mean {close[0]}? " if close else ""
            raise ValueError(
                f"{option}: no score is called {name!r}; {hint}known: {', '.join(known)}, and numbers of embed.fields, "
                f"as in embed: {{fields: {{{name}: number}}}}"
            )

    @model_validator(mode="after")
    def _groups_are_there(self) -> "RunConfig":
        name = self.select.groups
        if name is not None and name not in {"shard", *schemas.samples().names, *self.embed.fields}:
            raise ValueError(
                f"select.groups: {name!r} is no column; expected shard or a text of embed.fields, as in "
                f"embed: {{fields: {{{name}: text}}}}"
            )
        return self

    @field_validator("input", "work_dir", "output")
    @classmethod
    def _has_a_bucket(cls, place: str | list[str]) -> str | list[str]:
        for url in [place] if isinstance(place, str) else place:
            if re.match(r"(s3|gs)://(/|$)", url):
                raise ValueError("expected a bucket after //, as in s3://bucket/folder")
        return place

    @model_validator(mode="after")
    def _graph_is_of_a_model(self) -> "RunConfig":
        if self.graph.model is not None and self.graph.model not in self.embed.models:
            known = ", ".join(self.embed.models) or "none, so leave it out"
            raise ValueError(f"graph.model = {self.graph.model}: expected a name of embed.models ({known})")
        return self

    @property
    def embeddings_file(self) -> str:
        """What the embeddings that distances are measured on are called in each part."""
        first = next(iter(self.embed.models), None)
        return schemas.embeddings_file(None if self.graph.model == first else self.graph.model)

    @model_validator(mode="after")
    def _a_gpu_is_helped(self) -> "RunConfig":
        if self.embed.decode == "remote" and not self.ray.num_gpus:
            raise ValueError(
                "embed.decode = remote is for workers with a GPU; expected ray.num_gpus above 0 or decode = local"
            )
        return self

    @model_validator(mode="after")
    def _output_is_no_work_dir(self) -> "RunConfig":
        if self.output.rstrip("/") == self.work_dir.rstrip("/"):
            raise ValueError(
                f"output and work_dir are both {self.output}; expected a folder of its own for the output"
            )
        return self

    @field_validator("output")
    @classmethod
    def _run_id_is_the_folder(cls, output: str) -> str:
        if "{" in output and not re.fullmatch(r"[^{}]+/\{run_id\}/?", output):
            raise ValueError("expected braces only as the last folder, .../{run_id}")
        return output

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> "RunConfig":
        """Read a YAML file and apply `a.b=c` overrides.

        Raises:
            UserError: one line naming the file, the key, its value and what was expected.
        """
        return cls.parse(file.read(path, overrides), str(path))

    @classmethod
    def parse(cls, values: dict[str, Any], source: str) -> "RunConfig":
        """Check plain values; `source` is named in the error.

        Raises:
            UserError: as `load`.
        """
        try:
            return cls.model_validate(values)
        except pydantic.ValidationError as error:
            raise UserError(f"{source}: {file.explain(error, cls)}") from error
