"""Sections that decide what is embedded: `embed`, `filter` and `columns`."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from d2prune.config import model_names
from d2prune.config.section import EmptyIfNull, Location, Number, Section, Text, Whole
from d2prune.store import schemas


class EmbedConfig(Section):
    """Embed images and captions.

    For tables of embeddings, only `fields` and `max_reject_rate` apply.
    """

    model: Location | None = Field(
        default=None,
        description="open_clip architecture, `hf-hub:` name, folder, or `demo` (a toy model). Required for "
        "tars",
    )
    pretrained: Location | None = Field(
        default=None, description="open_clip pretrained tag of the model, or path to a checkpoint"
    )
    models: dict[Text, Text] = Field(
        default={},
        description="several models that embed in one pass over the images, instead of `model` and "
        "`pretrained`: `[ViT-B-32/openai, ViT-L-14/openai]` (named b32 and l14) or `{NAME: "
        "ARCHITECTURE/TAG}`. Each adds the score `clip_NAME`; `clip_score` is that of the first",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto",
        description="numeric precision of the model. `auto`: fp32 on a CPU; on a GPU bf16, or fp16 if it "
        "lacks bf16",
    )
    resize: Literal["exact", "device"] = Field(
        default="exact",
        description="where images are resized. `exact`: by decode processes, to the same pixels as "
        "open_clip; `device`: on the GPU, to within 2 of 255, for machines with few cores per GPU",
    )
    decode: Literal["local", "remote"] = Field(
        default="local",
        description="where images are decoded. `local`: on the model's machine; `remote`: also on machines "
        "without a GPU, for GPU machines with too few cores",
    )
    image_timeout: Number = Field(
        default=30,
        gt=0,
        le=86_400,
        description="CPU seconds after which decoding is aborted and the image rejected",
    )
    max_pixels: Whole = Field(
        default=100_000_000,
        ge=1,
        le=10**12,
        description="images with more pixels are rejected before decoding",
    )
    max_reject_rate: Number = Field(
        default=0.2, ge=0, le=1, description="fraction of rejected samples above which the run fails"
    )
    fields: Annotated[dict[Text, Literal["number", "text"]], EmptyIfNull] = Field(
        default={},
        description="values of the json (tars) or columns (tables) to carry along, for use as scores or "
        "groups: `{aesthetic: number, lang: text}`",
    )
    batch_size: Annotated[Whole, Field(ge=1, le=65_536)] | Literal["auto"] = Field(
        default=64,
        description="samples per forward pass. `auto`: grows while throughput improves and memory suffices; "
        "the last bits of embeddings then vary between runs",
    )
    compile: bool = Field(
        default=False,
        description="compile the models with torch.compile, which pays off in long runs. Needs a C++ "
        "compiler, and Triton on a GPU",
    )

    @field_validator("fields")
    @classmethod
    def _reject_taken_names(cls, fields: dict[str, str]) -> dict[str, str]:
        taken = fields.keys() & {*schemas.samples().names, *schemas.embeddings(1).names}
        if taken:
            raise ValueError(f"expected names of new columns; {', '.join(sorted(taken))} already exists")
        return fields

    @field_validator("models", mode="before")
    @classmethod
    def _name_models(cls, models: Any) -> Any:
        if models is None:
            return {}
        if not isinstance(models, list | dict):
            raise ValueError(
                "expected a list such as [ViT-B-32/openai, ViT-L-14/openai], or {NAME: ARCHITECTURE/TAG}"
            )
        return model_names.name_models(models) if isinstance(models, list) else models

    @model_validator(mode="after")
    def _check_models(self) -> "EmbedConfig":
        model_names.check_names(self.models)
        if self.compile and self.batch_size == "auto":
            raise ValueError(
                "expected batch_size to be a number: compile specialises the model to one batch size"
            )
        if self.models and (self.model or self.pretrained):
            raise ValueError("expected model (with pretrained) or models, not both")
        for column in map(schemas.score_column, self.models):
            if column in self.fields:
                raise ValueError(f"fields and models both define the column {column}; rename one of them")
        return self

    @property
    def named_models(self) -> tuple[tuple[str, str, str | None], ...]:
        """(name, model, pretrained) of every model, in order; the name of `model` is empty."""
        if self.model is not None:
            return (("", self.model, self.pretrained),)
        return tuple((name, *model_names.split_model(text)) for name, text in self.models.items())


class FilterConfig(Section):
    """Leave out samples of tars before anything is embedded, and rows of tables before they are imported.

    All filters are off by default. [DataComp's baselines](howto/datacomp.md) are made of them.
    """

    min_words: Annotated[Whole, Field(ge=1, le=2**31 - 1)] | None = Field(
        default=None, description="minimum number of words in a caption"
    )
    min_characters: Annotated[Whole, Field(ge=1, le=2**31 - 1)] | None = Field(
        default=None, description="minimum number of characters in a caption"
    )
    min_image_side: Annotated[Whole, Field(ge=1, le=2**31 - 1)] | None = Field(
        default=None,
        description="minimum length of an image's shorter side, in pixels: of `original_width` and "
        "`original_height` of the json or table, if it has them",
    )
    max_aspect_ratio: Annotated[Number, Field(ge=1)] | None = Field(
        default=None, description="maximum ratio of an image's longer to its shorter side"
    )
    language: Text | None = Field(
        default=None,
        description="language of captions, as a code such as `en`, detected by fastText's lid.176. Needs "
        "`pip install 'd2prune[language]'`",
    )
    words: Location | None = Field(
        default=None,
        description="text file with one word a line, of which a caption must contain one (case and plurals "
        "do not matter)",
    )


class ColumnsConfig(Section):
    """Columns and arrays of tables of embeddings.

    `auto` stands for the names that DataComp and clip-retrieval use.
    """

    image_emb: Text | None = Field(
        default="auto", description="image embeddings, such as `l14_img`; null: do not read them"
    )
    text_emb: Text | None = Field(
        default="auto", description="text embeddings, such as `l14_txt`; null: do not read them"
    )
    clip_score: Text | None = Field(
        default="auto", description="similarity of image and text; null: the cosine of their embeddings"
    )
    uid: Text | None = Field(
        default="auto",
        description="uid: 32 hex digits, a UUID or 16 bytes; null: a hash of embeddings and caption",
    )
    caption: Text | None = Field(default="auto", description="caption; null: none")
