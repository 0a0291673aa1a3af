"""What a run starts from: tars that are embedded, or tables whose embeddings are imported. Either gives one artifact.

Looks at the input and at the configuration's `embed` and `columns`; writes nothing. Downstream of the embed stage only
the write stage needs to know which it was: without tars there is nothing to copy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from pipeline import storage
from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution import Helpers
from pipeline.inputs import pool, tables
from pipeline.inputs.find import SourceShard, find_input
from pipeline.inputs.tables import TableFile

if TYPE_CHECKING:
    from pipeline.embed.stage import EmbedParams
    from pipeline.embed.tables import ImportParams
    from pipeline.inputs.table_columns import Columns


@dataclass(frozen=True)
class Source:
    """An input that was found.

    Attributes:
        shards: its parts in canonical order.
        identity: fingerprint of all of them.
        params: of the embed stage.
        models: as the user names them, after `models.absolute`; empty: tables, which need none.
    """

    shards: tuple[SourceShard, ...]
    identity: str
    params: "EmbedParams | ImportParams"
    models: tuple[tuple[str, str | None], ...]

    @property
    def is_tables(self) -> bool:
        """Whether there are embeddings and no pictures."""
        return not self.models

    def units(self) -> Sequence[Any]:
        """The units of the embed stage."""
        from pipeline.embed import stage as tars
        from pipeline.embed import tables

        plan: Callable[..., Sequence[Any]] = tables.plan if self.is_tables else tars.plan
        return plan(self.shards, self.params)

    def make_worker(
        self, folder: str, decode_processes: int, image_timeout: float, helpers: Helpers | None = None
    ) -> Callable[[], Callable[[Any], Any]]:
        """What builds a worker of the embed stage; picklable. Arguments as of `EmbedWorker`."""
        from pipeline.embed.stage import EmbedWorker
        from pipeline.embed.tables import ImportParams, ImportWorker

        if self.is_tables:
            return partial(ImportWorker, folder, cast(ImportParams, self.params))
        params, (first, *others) = cast("EmbedParams", self.params), self.models
        return partial(
            EmbedWorker,
            folder,
            params,
            *first,
            decode_processes=decode_processes,
            image_timeout=image_timeout,
            others=tuple(others),
            helpers=helpers,
        )


def open_source(config: RunConfig) -> Source:
    """Find the input and say how it becomes the embed artifact.

    Raises:
        UserError: the input, the model or a column is missing, or they do not go together.
    """
    found = find_input(config.input)
    files = [file for file in found if isinstance(file, TableFile)]
    if files:
        return _tables(config, files)
    return _tars(config, [shard for shard in found if isinstance(shard, pool.Shard)])


def _tars(config: RunConfig, shards: Sequence[pool.Shard]) -> Source:
    from pipeline.embed import models
    from pipeline.embed.filters import Filters
    from pipeline.embed.stage import EmbedParams

    given = config.embed
    named = given.named_models
    if not named:
        raise UserError(
            f"embed.model is missing: {storage.redact(shards[0].url)} is a tar, whose pictures need a model; "
            "`d2prune models` lists them, and embed.model=demo is there to try"
        )
    found = [models.absolute(model, pretrained) for _, model, pretrained in named]
    try:
        identities = [models.identity(*model) for model in found]
    except UserError as error:
        if not given.models:
            raise
        raise UserError(f"embed.models: {error}") from error
    filters = Filters(**config.filter.model_dump())
    filters.setup()
    params = EmbedParams(
        *identities[0],
        precision=given.precision,
        batch_size=given.batch_size,
        resize=given.resize,
        max_pixels=given.max_pixels,
        fields=tuple(sorted(given.fields.items())),
        filters=filters,
        compile=given.compile,
        others=tuple(identities[1:]),
        names=tuple(name for name, _, _ in named) if given.models else (),
    )
    return Source(tuple(shards), pool.pool_identity(shards), params, tuple(found))


def _tables(config: RunConfig, files: Sequence[TableFile]) -> Source:
    from pipeline.embed.tables import SHARE_BYTES, ImportParams
    from pipeline.inputs.table_columns import WantedColumns, resolve

    first = storage.redact(files[0].table.url)
    for option, value in (("embed.model", config.embed.model), ("embed.models", ", ".join(config.embed.models))):
        if value:
            raise UserError(f"{option} = {value}: the input is embedded already ({first}); leave it out")
    set_filters = [name for name, value in config.filter.model_dump().items() if value is not None]
    if set_filters:
        raise UserError(f"filter.{set_filters[0]}: filters look at captions and pictures of tars; {first} is a table")
    columns = resolve(files[0], WantedColumns(**config.columns.model_dump()))
    _check(config, columns, first)
    shards = tables.cut(files, SHARE_BYTES)
    params = ImportParams(columns, tuple(sorted(config.embed.fields.items())))
    return Source(tuple(shards), tables.pool_identity(shards), params, ())


def _check(config: RunConfig, columns: "Columns", first: str) -> None:
    """What later stages would stumble over.

    Raises:
        UserError: a side that the graph needs, or the score that is asked for, is not there.
    """
    for side, name in (("image", columns.image_emb), ("text", columns.text_emb)):
        if name is None and side in config.graph.features.split("+"):
            raise UserError(
                f"graph.features = {config.graph.features}: no {side} embeddings are known in {first}; "
                f"name them in columns.{side}_emb, or leave that side out of graph.features"
            )
    asked = {"score.difficulty": config.score.difficulty, "select.drop_score": config.select.drop_score}
    for option, score in asked.items():
        if score == "clip_score" and columns.clip_score is None and len(columns.embeddings) < 2:
            raise UserError(
                f"{option} = clip_score: {first} has no such score and not both embeddings to compute it from; "
                "name it in columns.clip_score, or another score in embed.fields"
            )
