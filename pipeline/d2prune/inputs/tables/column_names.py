"""Names of the columns and arrays of a table pool: those configured, and those found in its first file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from d2prune import store
from d2prune.errors import UserError
from d2prune.inputs.tables.files import SUPPORTED_INPUTS, TableFile
from d2prune.inputs.tables.matrices import npz_names
from d2prune.store import FileInfo
from d2prune.store.ranges import open_seekable

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
_STREAM_BYTES = 4 << 20

Location = Literal["npz", "npy", "column"]


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


@contextmanager
def open_table(file: FileInfo) -> Iterator[pq.ParquetFile]:
    """Open a parquet file that is read by byte ranges.

    Raises:
        UserError: it does not exist, changed during the run, or is not parquet.
    """
    with open_seekable(file) as stream:
        try:
            table = pq.ParquetFile(stream, buffer_size=_STREAM_BYTES)
        except pa.ArrowInvalid as error:
            raise UserError(
                f"{store.redact(file.url)}: not parquet, or truncated: {_format_error(error)}"
            ) from error
        yield table


def is_vector(kind: pa.DataType) -> bool:
    """Return whether a column of this type can hold embeddings."""
    lists = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(lists and pa.types.is_floating(kind.value_type))


def locate_embeddings(file: TableFile, schema: pa.Schema, name: str) -> Location:
    """Return where the embeddings called `name` are stored.

    Raises:
        UserError: there are none; the message lists the existing ones.
    """
    if name in file.arrays:
        return "npy"
    if file.npz is not None and name in npz_names(file.npz):
        return "npz"
    if name in schema.names:
        if is_vector(schema.field(name).type):
            return "column"
        raise UserError(
            f"{store.redact(file.table.url)}: column {name} is {schema.field(name).type}; "
            "expected lists of floats"
        )
    shown = store.redact((file.npz or file.table).url)
    raise UserError(
        f"{shown}: no embeddings called {name}; found {', '.join(_list_arrays(file, schema)) or 'none'}"
    )


def resolve_columns(file: TableFile, wanted: WantedColumns) -> Columns:
    """Find the names in the first file of a pool.

    Args:
        file: the first file.
        wanted: names as configured.

    Raises:
        UserError: there are no embeddings, or a configured name does not exist.
    """
    with open_table(file.table) as table:
        schema = table.schema_arrow
    shown = store.redact(file.table.url)
    arrays = _list_arrays(file, schema)
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
            f"input: no embeddings found in {shown}: {_describe(arrays, schema)}; expected {SUPPORTED_INPUTS}"
        )
    for name in (image, text):
        if name is not None:
            locate_embeddings(file, schema, name)
    scores = _SCORES if family is None else (family[2], *_SCORES)

    def find_column(option: str, given: str | None, usual: Sequence[str]) -> str | None:
        if given == AUTO:
            return next((name for name in usual if name in schema.names), None)
        if given is not None and given not in schema.names:
            raise UserError(
                f"columns.{option}: {shown} has no column {given}; found {', '.join(schema.names)}"
            )
        return given

    return Columns(
        image_emb=image,
        text_emb=text,
        clip_score=find_column("clip_score", wanted.clip_score, scores),
        uid=find_column("uid", wanted.uid, ("uid",)),
        key=find_column("key", AUTO, _KEYS),
        caption=find_column("caption", wanted.caption, _CAPTIONS),
        width=find_column("width", AUTO, _WIDTHS),
        height=find_column("height", AUTO, _HEIGHTS),
    )


def _list_arrays(file: TableFile, schema: pa.Schema) -> list[str]:
    """Return all names under which embeddings are stored."""
    columns = [field.name for field in schema if is_vector(field.type)]
    return [*sorted(file.arrays), *(npz_names(file.npz) if file.npz else []), *columns]


def _describe(arrays: Sequence[str], schema: pa.Schema) -> str:
    return f"its columns are {', '.join(schema.names)}" + (
        f", its arrays {', '.join(arrays)}" if arrays else ""
    )


def _format_error(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
