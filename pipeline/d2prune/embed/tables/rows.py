"""Rows of a table -> samples with unit embeddings, or rejects with a reason. Pure: no files.

Reads an `inputs.table_reader.Batch`, gives a `schemas.samples` table, float16 embeddings of the
same rows, and rejects.
Invariants: every row is one or the other; a row's bits depend on that row alone, not on its batch.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from d2prune.embed.decode.decoder import FieldKind
from d2prune.embed.tables.unit_norm import cosines, unit_halves
from d2prune.errors import UserError
from d2prune.inputs import reasons
from d2prune.inputs.tables.column_names import Columns
from d2prune.inputs.tables.reader import Batch
from d2prune.store import schemas

Halves = NDArray[np.float16]
Fields = Sequence[tuple[str, FieldKind]]

_UID = "^[0-9a-fA-F]{32}$"
_KEY_DIGITS = 8


@dataclass(frozen=True)
class Rows:
    """What became of a batch of N rows.

    Attributes:
        read: N.
        samples: the M rows that can be used.
        image_MD: their embeddings, unit norm; None where the pool has none.
        text_MD: likewise.
        rejects: (key, reason, detail) of the others, in order.
    """

    read: int
    samples: pa.Table
    image_MD: Halves | None
    text_MD: Halves | None
    rejects: tuple[tuple[str, str, str], ...]


class _Faults:
    """Which rows are refused and why: the first fault found counts."""

    def __init__(self, count: int) -> None:
        self.good_N = np.ones(count, bool)
        self.found: list[tuple[int, str, str]] = []

    def refuse(self, wrong_N: NDArray[np.bool_], reason: str, detail: str) -> None:
        rows = np.flatnonzero(wrong_N & self.good_N)
        self.good_N[rows] = False
        self.found.extend((row, reason, detail) for row in rows.tolist())


def convert(batch: Batch, shard: str, url: str, columns: Columns, fields: Fields) -> Rows:
    """Check a batch and bring it into the schema.

    Args:
        batch: rows as they are stored.
        shard: name of their table.
        url: of the table, for messages, without secrets.
        columns: the names in the pool's files.
        fields: columns to carry along, (name, kind).

    Raises:
        UserError: a column's type is not what it should be.
    """
    values, count = _Values(batch.values, url), len(batch.values)
    faults = _Faults(count)
    sides: list[Halves | None] = []
    for name, rows_ND in ((columns.image_emb, batch.image_ND), (columns.text_emb, batch.text_ND)):
        if rows_ND is None:
            sides.append(None)
            continue
        half_ND, good_N = unit_halves(rows_ND)
        faults.refuse(~good_N, reasons.EMBEDDING_INVALID, f"{name} has no direction")
        sides.append(half_ND)
    caption = values.texts(columns.caption)
    row_N = pa.array(np.arange(batch.first, batch.first + count))
    numbered = pc.utf8_lpad(row_N.cast(pa.string()), width=_KEY_DIGITS, padding="0")
    samples = pa.Table.from_arrays(
        [
            pa.array([shard] * count, pa.string()),
            values.texts(columns.key) if columns.key else numbered,
            _uids(values, columns.uid, sides, caption, faults),
            _score(values, columns.clip_score, sides, faults),
            caption,
            values.pixels(columns.width),
            values.pixels(columns.height),
            row_N,
            pa.array(np.zeros(count, np.int64)),
            *(_field(values, name, kind, faults) for name, kind in fields),
        ],
        schema=schemas.samples(fields),
    )
    keys = samples["key"]
    rejects = tuple((keys[row].as_py(), reason, detail) for row, reason, detail in sorted(faults.found))
    if rejects:
        samples = samples.filter(pa.array(faults.good_N))
        sides = [None if side is None else side[faults.good_N] for side in sides]
    return Rows(count, samples, sides[0], sides[1], rejects)


@dataclass(frozen=True)
class _Values:
    """Columns of a batch as the types that are wanted."""

    batch: pa.RecordBatch
    url: str

    def _cast(self, name: str, kind: pa.DataType, expected: str) -> pa.Array:
        column = self.batch[name]
        number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        wrong = f"{self.url}: column {name} is {column.type}, expected {expected}"
        if pa.types.is_floating(kind) and not number:
            raise UserError(wrong)
        try:
            return column.cast(kind, safe=False)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UserError(wrong) from error

    def numbers(self, name: str, kind: pa.DataType) -> pa.Array:
        """A column of floats; nulls stay."""
        return self._cast(name, kind, "numbers")

    def texts(self, name: str | None) -> pa.Array:
        """A column of texts, empty where there is none; bytes that are no UTF-8 are replaced."""
        if name is None:
            return pa.array([""] * len(self.batch), pa.string())
        texts = self._cast(name, pa.string(), "texts").fill_null("")
        try:
            texts.validate(full=True)
        except pa.ArrowInvalid:
            raw = texts.cast(pa.binary()).to_pylist()
            texts = pa.array([value.decode("utf-8", "replace") for value in raw], pa.string())
        return texts

    def pixels(self, name: str | None) -> pa.Array:
        """A column of whole numbers; null where there is none."""
        if name is None:
            return pa.nulls(len(self.batch), pa.int32())
        pixels = self.numbers(name, pa.float64())
        return pc.if_else(pc.is_finite(pixels), pixels, None).cast(pa.int32(), safe=False)


def _score(values: _Values, name: str | None, sides: Sequence[Halves | None], faults: _Faults) -> pa.Array:
    if name is not None:
        score = values.numbers(name, pa.float32())
        faults.refuse(_not_finite(score), reasons.SCORE_MISSING, f"{name} is no finite number")
        return score
    image_ND, text_ND = sides
    if image_ND is None or text_ND is None or image_ND.shape != text_ND.shape:
        return pa.nulls(len(values.batch), pa.float32())
    return pa.array(cosines(image_ND, text_ND))


def _field(values: _Values, name: str, kind: FieldKind, faults: _Faults) -> pa.Array:
    if kind == "text":
        return values.texts(name)
    column = values.numbers(name, pa.float64())
    faults.refuse(_not_finite(column), reasons.FIELD_MISSING, f"{name} is no finite number")
    return column


def _not_finite(column: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(~np.isfinite(column.to_numpy(zero_copy_only=False)))


def _uids(
    values: _Values, name: str | None, sides: Sequence[Halves | None], caption: pa.Array, faults: _Faults
) -> pa.Array:
    if name is None:
        return pa.array(_hashes(sides, caption), pa.string())
    uid = values.texts(name)
    valid_N = pc.match_substring_regex(uid, _UID).to_numpy(zero_copy_only=False)
    faults.refuse(~valid_N, reasons.UID_INVALID, f"{name} is not 32 hex digits")
    return pc.ascii_lower(uid)


def _hashes(sides: Sequence[Halves | None], caption: pa.Array) -> list[str]:
    """BLAKE2b-128 of each row's embeddings, as float16, and of its caption."""
    joined = np.concatenate([side for side in sides if side is not None], axis=1).astype("<f2", copy=False)
    return [
        hashlib.blake2b(row.tobytes() + text.encode(), digest_size=16).hexdigest()
        for row, text in zip(joined, caption.to_pylist(), strict=True)
    ]
