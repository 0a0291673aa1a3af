"""Convert rows of a table to samples with unit embeddings, or to rejects. Pure: no files.

Takes a `TableBatch`; returns a `schemas.samples` table, float16 embeddings of the same rows, and the
rejects.
Invariants: every row is one or the other. A row's bits depend on that row alone, not on its batch.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from d2prune.embed.decode.fields import FieldKind
from d2prune.embed.filters import Filters
from d2prune.errors import UserError
from d2prune.inputs import rejects
from d2prune.inputs.rejects import Reject, SampleRejected, clean_line
from d2prune.inputs.tables.column_names import Columns
from d2prune.inputs.tables.reader import TableBatch
from d2prune.inputs.tables.values import (
    NUMBER,
    TEXT,
    UID,
    Kind,
    can_be_read,
    read_numbers,
    read_texts,
    read_uids,
)
from d2prune.store import schemas

Halves = NDArray[np.float16]
Fields = Sequence[tuple[str, FieldKind]]

_KEY_DIGITS = 8
NO_FILTERS = Filters()


@dataclass(frozen=True)
class ConvertedBatch:
    """The outcome of a batch of N rows.

    Attributes:
        read: N.
        samples: the M rows that can be used.
        image_MD: their embeddings, unit norm; None where the pool has none.
        text_MD: as `image_MD`.
        rejects: the other rows, in order.
        n_cut: texts that were cut.
    """

    read: int
    samples: pa.Table
    image_MD: Halves | None
    text_MD: Halves | None
    rejects: tuple[Reject, ...]
    n_cut: int


class _RejectedRows:
    """Rejected rows of a batch; the first reason found for a row counts."""

    def __init__(self, count: int) -> None:
        self.good_N = np.ones(count, bool)
        self._found: list[tuple[int, str, str]] = []

    def add(self, wrong_N: NDArray[np.bool_], reason: str, detail: str) -> None:
        rows = np.flatnonzero(wrong_N & self.good_N)
        self.good_N[rows] = False
        self._found.extend((row, reason, detail) for row in rows.tolist())

    def add_row(self, row: int, found: SampleRejected) -> None:
        self.good_N[row] = False
        self._found.append((row, found.reason, found.detail))

    def to_rejects(self, keys: pa.ChunkedArray) -> tuple[Reject, ...]:
        """Return the rejects in row order; `keys` are those of all rows."""
        return tuple(Reject(keys[row].as_py(), reason, detail) for row, reason, detail in sorted(self._found))


def convert_batch(
    batch: TableBatch,
    shard: str,
    url: str,
    columns: Columns,
    fields: Fields,
    filters: Filters = NO_FILTERS,
    words: frozenset[str] = frozenset(),
) -> ConvertedBatch:
    """Check a batch and convert it to the schema of samples.

    Args:
        batch: rows as stored.
        shard: name of their table.
        url: of the table without secrets, for error messages.
        columns: the names in the pool's files.
        fields: columns to carry along, (name, kind).
        filters: what captions and sizes of images must have; they apply first.
        words: the word list of the filters.

    Raises:
        UserError: a column has the wrong type.
    """
    # Loads numba, which a run over tars does not need here.
    from d2prune.knn.unit_norm import unit_halves

    values, count = _TypedColumns(batch.values, url), len(batch.values)
    rejected = _RejectedRows(count)
    caption, width, height = (
        values.texts(columns.caption),
        values.pixels(columns.width),
        values.pixels(columns.height),
    )
    _filter_rows(filters, words, caption, width, height, rejected)
    sides: list[Halves | None] = []
    for name, rows_ND in ((columns.image_emb, batch.image_ND), (columns.text_emb, batch.text_ND)):
        if rows_ND is None:
            sides.append(None)
            continue
        half_ND, good_N = unit_halves(rows_ND)
        detail = f"{name} is missing, all zeros, NaN, infinite or of another length"
        rejected.add(~good_N, rejects.EMBEDDING_INVALID, detail)
        sides.append(half_ND)
    row_N = pa.array(np.arange(batch.first, batch.first + count))
    numbered = pc.utf8_lpad(row_N.cast(pa.string()), width=_KEY_DIGITS, padding="0")
    schema = schemas.samples(fields)
    samples = pa.Table.from_arrays(
        [
            pa.array([shard] * count, pa.string()),
            values.texts(columns.key) if columns.key else numbered,
            _read_uids(values, columns.uid, sides, caption, rejected),
            _read_scores(values, columns.clip_score, sides, rejected),
            caption,
            width,
            height,
            row_N,
            pa.array(np.zeros(count, np.int64)),
            pa.nulls(count, schema.field("checksum").type),
            pa.nulls(count, schema.field("image_sha256").type),
            *(_read_field(values, name, kind, rejected) for name, kind in fields),
        ],
        schema=schema,
    )
    found = rejected.to_rejects(samples["key"])
    if found:
        samples = samples.filter(pa.array(rejected.good_N))
        sides = [None if side is None else side[rejected.good_N] for side in sides]
    return ConvertedBatch(count, samples, sides[0], sides[1], found, values.n_cut)


def _filter_rows(
    filters: Filters,
    words: frozenset[str],
    caption: pa.Array,
    width: pa.Array,
    height: pa.Array,
    rejected: _RejectedRows,
) -> None:
    if not filters.read_captions and not filters.read_sizes:
        return
    for row, (text, *size) in enumerate(
        zip(caption.to_pylist(), width.to_pylist(), height.to_pylist(), strict=True)
    ):
        try:
            filters.check_caption(text, words)
            filters.check_image(*size)
        except SampleRejected as error:
            rejected.add_row(row, error)


class _TypedColumns:
    """Columns of a batch as the types of the schema; `n_cut` counts the texts that were cut."""

    def __init__(self, batch: pa.RecordBatch, url: str) -> None:
        self.batch, self.n_cut = batch, 0
        self._url = url

    def _find(self, name: str, kind: Kind) -> pa.Array:
        column = self.batch[name]
        if not can_be_read(column.type, kind):
            found = clean_line(f"column {name} is {column.type}")
            raise UserError(f"{self._url}: {found}; expected {kind.expected}")
        return column

    def numbers(self, name: str, kind: pa.DataType) -> pa.Array:
        """Return a column of floats, with its nulls."""
        return read_numbers(self._find(name, NUMBER), kind)

    def texts(self, name: str | None) -> pa.Array:
        """Return a column of strings, empty where missing."""
        if name is None:
            return pa.array([""] * len(self.batch), pa.string())
        texts, n_cut = read_texts(self._find(name, TEXT))
        self.n_cut += n_cut
        return texts

    def uids(self, name: str) -> pa.Array:
        """Return a column of uids, null where there is none."""
        return read_uids(self._find(name, UID))

    def pixels(self, name: str | None) -> pa.Array:
        """Return a column of int32, null where missing."""
        if name is None:
            return pa.nulls(len(self.batch), pa.int32())
        pixels = self.numbers(name, pa.float64())
        # NaN compares as false.
        return pc.if_else(pc.less(pc.abs(pixels), 2**31), pixels, None).cast(pa.int32(), safe=False)


def _read_scores(
    values: _TypedColumns, name: str | None, sides: Sequence[Halves | None], rejected: _RejectedRows
) -> pa.Array:
    if name is not None:
        score = values.numbers(name, pa.float32())
        rejected.add(_not_finite(score), rejects.SCORE_MISSING, f"{name} is not a finite number")
        return score
    image_ND, text_ND = sides
    if image_ND is None or text_ND is None or image_ND.shape != text_ND.shape:
        return pa.nulls(len(values.batch), pa.float32())
    from d2prune.knn.unit_norm import cosines

    return pa.array(cosines(image_ND, text_ND))


def _read_field(values: _TypedColumns, name: str, kind: FieldKind, rejected: _RejectedRows) -> pa.Array:
    if kind == "text":
        return values.texts(name)
    column = values.numbers(name, pa.float64())
    rejected.add(_not_finite(column), rejects.FIELD_MISSING, f"{name} is not a finite number")
    return column


def _not_finite(column: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(~np.isfinite(column.to_numpy(zero_copy_only=False)))


def _read_uids(
    values: _TypedColumns,
    name: str | None,
    sides: Sequence[Halves | None],
    caption: pa.Array,
    rejected: _RejectedRows,
) -> pa.Array:
    if name is None:
        return pa.array(_hash_rows(sides, caption), pa.string())
    uid = values.uids(name)
    missing_N = uid.is_null().to_numpy(zero_copy_only=False)
    rejected.add(missing_N, rejects.UID_INVALID, f"{name} is neither 32 hex digits nor a UUID")
    return uid


def _hash_rows(sides: Sequence[Halves | None], caption: pa.Array) -> list[str]:
    """Return BLAKE2b-128, in hex, of each row's float16 embeddings and caption."""
    joined = np.concatenate([side for side in sides if side is not None], axis=1).astype("<f2", copy=False)
    return [
        hashlib.blake2b(row.tobytes() + text.encode(), digest_size=16).hexdigest()
        for row, text in zip(joined, caption.to_pylist(), strict=True)
    ]
