"""Names of the columns and arrays of a table pool: those configured, and those found in its first file."""

from collections.abc import Sequence
from dataclasses import dataclass

from d2prune import store
from d2prune.errors import UserError
from d2prune.inputs.rejects import clean_line
from d2prune.inputs.tables.files import SUPPORTED_INPUTS, TableFile
from d2prune.inputs.tables.parquet import ParquetTable
from d2prune.inputs.tables.source import TableSource, open_source
from d2prune.inputs.tables.values import NUMBER, TEXT, Kind, can_be_read

AUTO = "auto"
IMAGE_HASHES = "sha256"
"""Column of a table with the SHA-256 of each image, in hex."""
# (image array, text array, score of the two): the first image array that exists decides the others.
_FAMILIES = (
    ("l14_img", "l14_txt", "clip_l14_similarity_score"),
    ("b32_img", "b32_txt", "clip_b32_similarity_score"),
    ("image_emb", "text_emb", "clip_score"),
    ("img_emb", "text_emb", "similarity"),
    ("image_embedding", "text_embedding", "clip_score"),
)
_SCORES = ("clip_score", "similarity")
_CAPTIONS = ("text", "caption")
_KEYS = ("key", "image_path")
_WIDTHS = ("original_width", "width")
_HEIGHTS = ("original_height", "height")


@dataclass(frozen=True)
class WantedColumns:
    """Names as configured: `auto` looks for the usual names, None omits one. Attributes: see `Columns`."""

    image_emb: str | None = AUTO
    text_emb: str | None = AUTO
    clip_score: str | None = AUTO
    uid: str | None = AUTO
    caption: str | None = AUTO


@dataclass(frozen=True)
class Columns:
    """Names in a pool's files; None where there is none.

    Attributes:
        image_emb: array or column of the image embeddings.
        text_emb: array or column of the text embeddings.
        clip_score: column of their similarity; None: the cosine of the two, where there are two.
        uid: column; None: a hash of embeddings and caption.
        key: column; None: the row number.
        caption: column.
        width: column, of the image.
        height: column, of the image.
    """

    image_emb: str | None
    text_emb: str | None
    clip_score: str | None
    uid: str | None
    key: str | None
    caption: str | None
    width: str | None
    height: str | None

    @property
    def embeddings(self) -> tuple[str, ...]:
        """Names of the arrays or columns that hold embeddings."""
        return tuple(name for name in (self.image_emb, self.text_emb) if name is not None)

    @property
    def values(self) -> tuple[str, ...]:
        """Names of the plain columns to read, each once."""
        names = (self.clip_score, self.uid, self.key, self.caption, self.width, self.height)
        return tuple(dict.fromkeys(name for name in names if name is not None))


def resolve_columns(files: Sequence[TableFile], wanted: WantedColumns) -> Columns:
    """Find the names in the first file of a pool that has rows.

    Args:
        files: the pool's files, in canonical order.
        wanted: names as configured.

    Raises:
        UserError: no file has rows, there are no embeddings, or a configured name does not exist.
    """
    for file in files:
        with open_source(file) as source:
            if source.table.rows:
                return _resolve_in(source, wanted)
    first = store.redact(files[0].table.url)
    raise UserError(f"input: none of {len(files)} tables has rows, such as {first}; expected rows")


def _resolve_in(source: TableSource, wanted: WantedColumns) -> Columns:
    table, schema = source.table, source.table.schema
    arrays = source.list_arrays({name for family in _FAMILIES for name in family[:2]})
    family = next(
        (f for f in _FAMILIES if f[0] == wanted.image_emb or (wanted.image_emb == AUTO and f[0] in arrays)),
        None,
    )
    text_family = next((f for f in _FAMILIES if f[1] in arrays), None)
    image_auto = family[0] if family else None
    text_auto = family[1] if family else text_family[1] if text_family else None
    image = image_auto if wanted.image_emb == AUTO else wanted.image_emb
    text = (text_auto if text_auto in arrays else None) if wanted.text_emb == AUTO else wanted.text_emb
    if image is None and text is None:
        raise UserError(
            f"input: no embeddings found in {table.shown}: {_describe(arrays, table)}; "
            f"expected {SUPPORTED_INPUTS}"
        )
    for name in (image, text):
        if name is not None:
            source.locate(name)
    scores = _SCORES if family is None else (family[2], *_SCORES)

    def find_column(option: str, given: str | None, usual: Sequence[str]) -> str | None:
        if given == AUTO:
            return next((name for name in usual if name in schema.names), None)
        if given is not None and given not in schema.names:
            raise UserError(
                f"columns.{option}: {table.shown} has no column {clean_line(given)}; "
                f"found {table.list_columns()}"
            )
        return given

    def find_readable(usual: Sequence[str], kind: Kind) -> str | None:
        # These have no option, so a column of another type is none of ours.
        known = (name for name in usual if name in schema.names)
        return next((name for name in known if can_be_read(schema.field(name).type, kind)), None)

    return Columns(
        image_emb=image,
        text_emb=text,
        clip_score=find_column("clip_score", wanted.clip_score, scores),
        uid=find_column("uid", wanted.uid, ("uid",)),
        key=find_readable(_KEYS, TEXT),
        caption=find_column("caption", wanted.caption, _CAPTIONS),
        width=find_readable(_WIDTHS, NUMBER),
        height=find_readable(_HEIGHTS, NUMBER),
    )


def _describe(arrays: Sequence[str], table: ParquetTable) -> str:
    return f"its columns are {table.list_columns()}" + (
        f", its arrays {clean_line(', '.join(arrays))}" if arrays else ""
    )
