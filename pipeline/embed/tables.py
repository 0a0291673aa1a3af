"""The embed stage of pools that are embedded already: one part of a table -> the same artifact, with no model.

Reads table files and arrays (`inputs.table_reader`), writes what `embed.stage` writes: `samples.parquet`,
`embeddings.parquet` and `rejects.parquet`, rows in table order. A sample's `offset` is its row in the table and its
`size` 0: it has no bytes to copy. Invariants: rows read = embedded + rejected; a row's bits depend on that row alone,
however the table is cut. Memory: the rows of one part.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import artifacts, schemas, storage
from pipeline.artifacts import Receipt
from pipeline.columns import vector_column
from pipeline.embed.decode import UID_FROM_HASH, FieldKind
from pipeline.embed.stage import EMBEDDED, EMBEDDINGS, READ, REJECTED, REJECTS, SAMPLES, UID_DUPLICATE
from pipeline.embed.unit_norm import cosines, unit_halves
from pipeline.errors import UserError
from pipeline.inputs import reasons
from pipeline.inputs.table_columns import Columns
from pipeline.inputs.table_reader import Batch, read_part
from pipeline.inputs.tables import TableShard

SHARE_BYTES = 128 << 20
"""Larger arrays are cut into parts of about so many bytes: what a worker holds is a few times as much."""

Halves = NDArray[np.float16]

_UID = "^[0-9a-fA-F]{32}$"
_KEY_DIGITS = 8


@dataclass(frozen=True)
class ImportParams:
    """What decides the content of a part.

    Attributes:
        columns: the names in the pool's files.
        fields: columns to carry along, (name, kind).
    """

    columns: Columns
    fields: tuple[tuple[str, FieldKind], ...] = ()


@dataclass(frozen=True)
class ImportUnit:
    """One part of a table; `key` changes with the content of its files and with the params."""

    key: str
    shard: TableShard


def plan(shards: Sequence[TableShard], params: ImportParams) -> list[ImportUnit]:
    """One unit per part, in the pool's order."""
    units = []
    for shard in shards:
        share = f"-{shard.index + 1}of{shard.of}" if shard.of > 1 else ""
        units.append(ImportUnit(artifacts.unit_key(f"{shard.name}{share}", params, shard.identity), shard))
    return units


@dataclass(frozen=True)
class ImportWorker:
    """Imports one part per call.

    Attributes:
        folder: the stage's folder, `work_dir/embed`.
        params: what the units were planned with.
    """

    folder: str
    params: ImportParams

    def __call__(self, unit: ImportUnit) -> Receipt:
        """Reads, checks and commits one part.

        Raises:
            UserError: a file is gone, changed or damaged, or a column is not what it should be.
            InfrastructureError: storage failed.
            BooksError: a row is neither embedded nor rejected.
        """
        part = _Part(unit.shard, self.params)
        for batch in read_part(unit.shard, self.params.columns, [name for name, _ in self.params.fields]):
            part.add(batch)
        return part.commit(self.folder, unit.key)


class _Faults:
    """Which rows of a batch are refused and why: the first fault found counts."""

    def __init__(self, count: int) -> None:
        self.good_N = np.ones(count, bool)
        self.found: list[tuple[int, str, str]] = []

    def refuse(self, wrong_N: NDArray[np.bool_], reason: str, detail: str) -> None:
        rows = np.flatnonzero(wrong_N & self.good_N)
        self.good_N[rows] = False
        self.found.extend((row, reason, detail) for row in rows.tolist())


@dataclass
class _Part:
    """Rows and books of one part while it is read."""

    shard: TableShard
    params: ImportParams
    counters: Counter[str] = field(default_factory=Counter)
    samples: list[pa.Table] = field(default_factory=list)
    image: list[Halves] = field(default_factory=list)
    text: list[Halves] = field(default_factory=list)
    rejects: list[dict[str, str]] = field(default_factory=list)

    def add(self, batch: Batch) -> None:
        """Takes in a batch: every row becomes a sample or a reject."""
        columns, count = self.params.columns, len(batch.values)
        faults = _Faults(count)
        sides: list[Halves | None] = []
        for name, rows_ND in ((columns.image_emb, batch.image_ND), (columns.text_emb, batch.text_ND)):
            if rows_ND is None:
                sides.append(None)
                continue
            half_ND, good_N = unit_halves(rows_ND)
            faults.refuse(~good_N, reasons.EMBEDDING_INVALID, f"{name} has no direction")
            sides.append(half_ND)
        image_ND, text_ND = sides
        caption = self._texts(batch, columns.caption, count)
        uid = self._uids(batch, sides, caption, faults)
        score = self._score(batch, image_ND, text_ND, faults)
        fields = [self._field(batch, name, kind, faults) for name, kind in self.params.fields]
        row_N = np.arange(batch.first, batch.first + count)
        key = self._texts(batch, columns.key, count) if columns.key else _numbered(row_N)
        table = pa.Table.from_arrays(
            [
                pa.array([self.shard.name] * count, pa.string()),
                key,
                uid,
                score,
                caption,
                self._pixels(batch, columns.width, count),
                self._pixels(batch, columns.height, count),
                pa.array(row_N),
                pa.array(np.zeros(count, np.int64)),
                *fields,
            ],
            schema=schemas.samples(self.params.fields),
        )
        self._book(faults, table, image_ND, text_ND)

    def _book(self, faults: _Faults, table: pa.Table, image_ND: Halves | None, text_ND: Halves | None) -> None:
        good_N, count = faults.good_N, table.num_rows
        self.counters[READ] += count
        self.counters[EMBEDDED] += int(good_N.sum())
        for row, reason, detail in sorted(faults.found):
            self.counters[REJECTED] += 1
            self.counters[f"{REJECTED}.{reason}"] += 1
            key = table["key"][row].as_py()
            self.rejects.append({"shard": self.shard.name, "key": key, "reason": reason, "detail": detail})
        whole = bool(good_N.all())
        self.samples.append(table if whole else table.filter(pa.array(good_N)))
        for rows_ND, kept in ((image_ND, self.image), (text_ND, self.text)):
            if rows_ND is not None:
                kept.append(rows_ND if whole else rows_ND[good_N])

    def _column(self, batch: Batch, name: str, kind: pa.DataType, expected: str) -> pa.Array:
        """A column as another type.

        Raises:
            UserError: its values cannot be that.
        """
        column = batch.values[name]
        number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        if pa.types.is_floating(kind) and not number:
            raise UserError(f"{storage.redact(self.shard.url)}: column {name} is {column.type}, expected {expected}")
        try:
            return column.cast(kind, safe=False)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UserError(
                f"{storage.redact(self.shard.url)}: column {name} is {column.type}, expected {expected}"
            ) from error

    def _texts(self, batch: Batch, name: str | None, count: int) -> pa.Array:
        if name is None:
            return pa.array([""] * count, pa.string())
        texts = self._column(batch, name, pa.string(), "texts").fill_null("")
        try:
            texts.validate(full=True)
        except pa.ArrowInvalid:
            texts = pa.array(
                [raw.decode("utf-8", "replace") for raw in texts.cast(pa.binary()).to_pylist()], pa.string()
            )
        return texts

    def _pixels(self, batch: Batch, name: str | None, count: int) -> pa.Array:
        if name is None:
            return pa.nulls(count, pa.int32())
        pixels = self._column(batch, name, pa.float64(), "numbers")
        return pc.if_else(pc.is_finite(pixels), pixels, None).cast(pa.int32(), safe=False)

    def _score(self, batch: Batch, image_ND: Halves | None, text_ND: Halves | None, faults: _Faults) -> pa.Array:
        name = self.params.columns.clip_score
        if name is not None:
            score = self._column(batch, name, pa.float32(), "numbers")
            faults.refuse(_not_finite(score), reasons.SCORE_MISSING, f"{name} is no finite number")
            return score
        if image_ND is None or text_ND is None or image_ND.shape != text_ND.shape:
            return pa.nulls(len(batch.values), pa.float32())
        return pa.array(cosines(image_ND, text_ND))

    def _field(self, batch: Batch, name: str, kind: FieldKind, faults: _Faults) -> pa.Array:
        if kind == "text":
            return self._texts(batch, name, len(batch.values))
        column = self._column(batch, name, pa.float64(), "numbers")
        faults.refuse(_not_finite(column), reasons.FIELD_MISSING, f"{name} is no finite number")
        return column

    def _uids(self, batch: Batch, sides: Sequence[Halves | None], caption: pa.Array, faults: _Faults) -> pa.Array:
        name = self.params.columns.uid
        if name is None:
            self.counters[UID_FROM_HASH] += int(faults.good_N.sum())
            return pa.array(_hashes(sides, caption), pa.string())
        uid = self._texts(batch, name, len(batch.values))
        valid_N = pc.match_substring_regex(uid, _UID).to_numpy(zero_copy_only=False)
        faults.refuse(~valid_N, reasons.UID_INVALID, f"{name} is not 32 hex digits")
        return pc.ascii_lower(uid)

    def commit(self, folder: str, key: str) -> Receipt:
        """Balances the books and writes the part."""
        books = {name: self.counters[name] for name in (EMBEDDED, REJECTED)}
        artifacts.balance(f"embed {key}", self.counters[READ], books)
        schema = schemas.samples(self.params.fields)
        samples = pa.concat_tables(self.samples).combine_chunks() if self.samples else schema.empty_table()
        self.counters[UID_DUPLICATE] = samples.num_rows - pc.count_distinct(samples["uid"]).as_py()
        sides = {name: parts for name, parts in (("image_emb", self.image), ("text_emb", self.text)) if parts}
        widths = {name: parts[0].shape[1] for name, parts in sides.items()}
        if not all(widths.values()):
            raise UserError(f"{storage.redact(self.shard.url)}: has no embedding in any row; leave it out of the input")
        vectors = {name: pa.chunked_array(list(map(vector_column, parts))) for name, parts in sides.items()}
        files: dict[str, pa.Table | bytes] = {
            SAMPLES: samples,
            EMBEDDINGS: pa.table(vectors),
            REJECTS: pa.Table.from_pylist(self.rejects, schema=schemas.REJECTS),
        }
        others = {name: count for name, count in sorted(self.counters.items()) if count}
        counters = {READ: self.counters[READ], **books, **others}
        return artifacts.commit_unit(folder, key, files, counters, {"dimensions": widths})


def check_dimensions(receipts: Sequence[Receipt]) -> None:
    """Refuses parts, or sides, whose embeddings are not equally long: they come from different models.

    Raises:
        UserError: names the part, or two of them.
    """
    told = [(receipt, receipt.facts["dimensions"]) for receipt in receipts if receipt.counters[READ]]
    first, expected = told[0]
    if len(set(expected.values())) > 1:
        raise UserError(
            f"input: embeddings of {first.key} have {_widths(expected)} dimensions; expected one model's "
            "(columns.text_emb: null leaves a side out)"
        )
    for receipt, widths in told[1:]:
        if widths != expected:
            raise UserError(
                f"input: embeddings of {receipt.key} have {_widths(widths)} dimensions, those of {first.key} "
                f"{_widths(expected)}; expected one model's"
            )


def _widths(widths: dict[str, int]) -> str:
    return ", ".join(f"{name} {width}" for name, width in sorted(widths.items()))


def _not_finite(column: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(~np.isfinite(column.to_numpy(zero_copy_only=False)))


def _numbered(row_N: NDArray[np.int64]) -> pa.Array:
    return pc.utf8_lpad(pa.array(row_N).cast(pa.string()), width=_KEY_DIGITS, padding="0")


def _hashes(sides: Sequence[Halves | None], caption: pa.Array) -> list[str]:
    """BLAKE2b-128 of each row's embeddings, as float16, and of its caption."""
    joined = np.ascontiguousarray(np.concatenate([side for side in sides if side is not None], axis=1), "<f2")
    return [
        hashlib.blake2b(row.tobytes() + text.encode(), digest_size=16).hexdigest()
        for row, text in zip(joined, caption.to_pylist(), strict=True)
    ]
