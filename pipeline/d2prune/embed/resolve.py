"""Resolve the configuration and the input to the parameters of the embed stage, for tars or for tables.

Reads `embed`, `filter` and `columns` of the configuration; writes nothing. Of the later stages, only
write distinguishes the two kinds of pool: a table has no bytes to copy.
"""

from collections.abc import Sequence

from d2prune import store
from d2prune.config.model import RunConfig
from d2prune.embed.decode.fields import FieldKind
from d2prune.embed.filters import Filters
from d2prune.embed.model import sources
from d2prune.embed.params import EmbedParams
from d2prune.embed.tables.importer import ImportParams
from d2prune.embed.word_file import hash_words, read_words
from d2prune.errors import UserError
from d2prune.inputs.pool import InputPool
from d2prune.inputs.tables.column_names import IMAGE_HASHES, Columns, WantedColumns, resolve_columns
from d2prune.inputs.tables.files import TableFile
from d2prune.inputs.tables.parquet import open_table
from d2prune.inputs.tables.schema_check import find_dimension


def resolve_params(config: RunConfig, pool: InputPool) -> EmbedParams | ImportParams:
    """Return everything that determines the embed artifact of a pool.

    Raises:
        UserError: a model or a column is missing, or the configuration does not fit the pool.
    """
    if pool.tables:
        return _resolve_import(config, pool.tables)
    return _resolve_embedding(config, store.redact(pool.shards[0].url))


def resolve_models(config: RunConfig) -> list[tuple[str, str | None]]:
    """Return the models of the run as (model, pretrained), with absolute paths."""
    return [sources.make_absolute(model, pretrained) for _, model, pretrained in config.embed.named_models]


def _resolve_embedding(config: RunConfig, first: str) -> EmbedParams:
    embed = config.embed
    if not embed.named_models:
        raise UserError(
            f"embed.model is missing: {first} is a tar, and its images need a model; "
            "`d2prune models` lists the names, and embed.model=demo is bundled to try things out"
        )
    try:
        identities = [sources.identity(*model) for model in resolve_models(config)]
    except UserError as error:
        if not embed.models:
            raise
        raise UserError(f"embed.models: {error}") from error
    return EmbedParams(
        *identities[0],
        precision=embed.precision,
        batch_size=embed.batch_size,
        resize=embed.resize,
        max_pixels=embed.max_pixels,
        fields=tuple(sorted(embed.fields.items())),
        filters=_resolve_filters(config),
        compile=embed.compile,
        others=tuple(identities[1:]),
        names=tuple(name for name, _, _ in embed.named_models) if embed.models else (),
    )


def _resolve_import(config: RunConfig, tables: Sequence[TableFile]) -> ImportParams:
    first = store.redact(tables[0].table.url)
    for option, value in (
        ("embed.model", config.embed.model),
        ("embed.models", ", ".join(config.embed.models)),
    ):
        if value:
            raise UserError(
                f"{option} = {value}: the input already has embeddings ({first}); remove the option"
            )
    columns = resolve_columns(tables, WantedColumns(**config.columns.model_dump()))
    _check_columns(config, columns, first)
    filters = _resolve_filters(config)
    _check_filters(filters, columns, first)
    fields = {**config.embed.fields, **_find_hashes(config, tables[0])}
    return ImportParams(columns, find_dimension(tables, columns), tuple(sorted(fields.items())), filters)


def _resolve_filters(config: RunConfig) -> Filters:
    """Return the filters, with a checksum in place of the word list.

    Raises:
        UserError: a filter needs a file or package that is missing, or the word list cannot be read.
    """
    words = hash_words(config.filter.words)
    read_words(config.filter.words, words)
    filters = Filters(**config.filter.model_dump(exclude={"words"}), words=words)
    filters.setup()
    return filters


def _check_filters(filters: Filters, columns: Columns, first: str) -> None:
    """Check that a table has what the filters read.

    Raises:
        UserError: it has no captions, or no sizes of images.
    """
    if filters.read_captions and columns.caption is None:
        raise UserError(
            f"filter: a filter reads captions, but {first} has none; name their column in columns.caption"
        )
    if filters.read_sizes and (columns.width is None or columns.height is None):
        raise UserError(
            f"filter: a filter reads the sizes of images, but found no original_width and original_height "
            f"(or width and height) in {first}; remove min_image_side and max_aspect_ratio"
        )


def _find_hashes(config: RunConfig, table: TableFile) -> dict[str, FieldKind]:
    """Return the column to carry along for `dedup.exact`; none without it.

    Raises:
        UserError: a table has no such column.
    """
    if not config.dedup.exact:
        return {}
    with open_table(table.table) as file:
        names = file.schema.names
    if IMAGE_HASHES not in names:
        raise UserError(
            f"dedup.exact: {store.redact(table.table.url)} has no column {IMAGE_HASHES}; expected the "
            "SHA-256 of each image in hex, as in DataComp's metadata (dedup.near needs no such column)"
        )
    return {IMAGE_HASHES: "text"}


def _check_columns(config: RunConfig, columns: Columns, first: str) -> None:
    """Check that a table has what later stages read.

    Raises:
        UserError: the embeddings that the graph needs, or the configured score, are missing.
    """
    for side, name in (("image", columns.image_emb), ("text", columns.text_emb)):
        if name is None and side in config.graph.features.split("+"):
            raise UserError(
                f"graph.features = {config.graph.features}: no {side} embeddings found in {first}; "
                f"name them in columns.{side}_emb, or remove {side} from graph.features"
            )
    asked = {"score.difficulty": config.score.difficulty, "select.drop_score": config.select.drop_score}
    for option, score in asked.items():
        if score == "clip_score" and columns.clip_score is None and len(columns.embeddings) < 2:
            raise UserError(
                f"{option} = clip_score: {first} has neither that score nor both embeddings to compute it; "
                "name its column in columns.clip_score, or choose another score in embed.fields"
            )
