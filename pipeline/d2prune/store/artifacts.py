"""Typed artifacts: what a stage leaves in `work_dir`, and how a later run knows it is finished and right.

    work_dir/<stage>/units/<unit key>/...          the files of one unit of work
    work_dir/<stage>/units/<unit key>/receipt.json  written last: the unit is done
    work_dir/<stage>/<fingerprint>/manifest.json    written last: the artifact is whole

A unit's key holds a hash of everything that decides its content, so a finished unit serves every
artifact that needs
it: a pool that grew re-uses the parts of its old shards. The fingerprint of an artifact is a hash
of its parameters and of its inputs' fingerprints. Manifests and receipts hold no times and no
machine names: the same work, the same bytes.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from d2prune import store
from d2prune.errors import BooksError, InfrastructureError
from d2prune.store.schemas import SCHEMA_VERSION

RECEIPT = "receipt.json"
MANIFEST = "manifest.json"

ROWS_PER_GROUP = 10_000
"""Rows of a parquet row group of a table that is written while its rows come."""


@dataclass(frozen=True)
class FileRecord:
    """One committed file: its name inside the unit's folder, rows (None: not a table), bytes and checksum."""

    name: str
    rows: int | None
    size: int
    checksum: str


@dataclass(frozen=True)
class Receipt:
    """What one unit of work did: its files, what it counted (summed over units) and what it measured (facts)."""

    key: str
    files: tuple[FileRecord, ...]
    counters: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def rows(self, name: str) -> int:
        """Rows of the table `name`."""
        return next(record.rows or 0 for record in self.files if record.name == name)


@dataclass(frozen=True)
class Manifest:
    """A whole artifact: its identity, its units in canonical order and the sums of their counters."""

    stage: str
    fingerprint: str
    params: Mapping[str, Any]
    inputs: Mapping[str, str]
    units: tuple[Receipt, ...]
    counters: Mapping[str, int]
    facts: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION


def canonical_json(value: Any) -> bytes:
    """`value` (dataclasses included) as JSON with sorted keys: the text that is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain, allow_nan=False).encode()


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} has no place in a fingerprint")


def fingerprint(*values: Any) -> str:
    """128 bits of BLAKE2b over the canonical JSON of the values and the schema version, in hex."""
    return hashlib.blake2b(canonical_json([SCHEMA_VERSION, *values]), digest_size=16).hexdigest()


def unit_key(name: str, *identity: Any) -> str:
    """A readable, unique folder name for a unit whose content `identity` decides."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[-48:]
    return f"{readable}-{fingerprint(name, *identity)[:16]}"


def table_bytes(table: pa.Table) -> bytes:
    """The table as parquet; the same rows give the same bytes."""
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=100_000, **_encoding(table.schema))
    return sink.getvalue()


def _encoding(schema: pa.Schema) -> dict[str, Any]:
    # Vectors hardly compress, and a dictionary of them only costs.
    vectors = len(schema) > 0 and all(pa.types.is_fixed_size_binary(field.type) for field in schema)
    return {
        "compression": "none" if vectors else "zstd",
        "use_dictionary": not vectors,
        "write_statistics": not vectors,
    }


class TableWriter:
    """A unit's table, written while its rows come: memory holds one row group.

    Attributes:
        schema: of its rows.
        record: of the file; valid once `table_writer` has ended.
    """

    def __init__(self, name: str, stream: IO[bytes], schema: pa.Schema, rows_per_group: int) -> None:
        self.schema = schema
        self._name, self._rows_per_group = name, rows_per_group
        self._sink = _Summed(stream)
        self._parquet = pq.ParquetWriter(self._sink, schema, **_encoding(schema))
        self._waiting: list[pa.Table] = []
        self._n_waiting = self._rows = 0
        self.record: FileRecord | None = None

    def write(self, table: pa.Table) -> None:
        """Append rows."""
        self._waiting.append(table)
        self._n_waiting += table.num_rows
        while self._n_waiting >= self._rows_per_group:
            # Groups of a fixed number of rows: the bytes do not depend on how the rows came.
            self._flush(self._rows_per_group)

    def _flush(self, rows: int) -> None:
        table = pa.concat_tables(self._waiting).combine_chunks()
        self._parquet.write_table(table.slice(0, rows))
        self._waiting, self._n_waiting = [table.slice(rows)], table.num_rows - rows
        self._rows += rows

    def close(self) -> None:
        """Write what is left and the footer."""
        if self._n_waiting or not self._rows:
            self._waiting = self._waiting or [self.schema.empty_table()]
            self._flush(self._n_waiting)
        self._parquet.close()
        self.record = FileRecord(self._name, self._rows, self._sink.size, self._sink.digest.hexdigest())

    def abandon(self) -> None:
        """Let go of the file, lest parquet writes its footer to a closed stream when it is collected."""
        self._sink.stream = None
        with contextlib.suppress(Exception):
            self._parquet.close()


class _Summed(io.RawIOBase):
    """Passes writes on, and keeps their sum and length."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        self.stream, self.size, self.digest = stream, 0, store.new_checksum()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self.stream is not None:
            self.stream.write(data)
        self.digest.update(data)
        self.size += len(data)
        return len(data)


@contextlib.contextmanager
def table_writer(
    folder: str, key: str, name: str, schema: pa.Schema, rows_per_group: int = ROWS_PER_GROUP
) -> Iterator[TableWriter]:
    """Write a unit's table row by row; the file appears when the block ends without an error.

    Args:
        folder: the stage's folder, `work_dir/<stage>`.
        key: the unit's key.
        name: of the file.
        schema: of the table.
        rows_per_group: rows of each parquet row group but the last.
    """
    with store.writer(unit_url(folder, key, name)) as stream:
        writer = TableWriter(name, stream, schema, rows_per_group)
        try:
            yield writer
            writer.close()
        except BaseException:
            writer.abandon()
            raise


def commit_unit(
    folder: str,
    key: str,
    files: Mapping[str, pa.Table | bytes],
    counters: Mapping[str, int] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Receipt:
    """Write a unit's files, then its receipt.

    Args:
        folder: the stage's folder, `work_dir/<stage>`.
        key: the unit's key.
        files: name -> table (written as parquet) or bytes.
        counters: what the unit counted.
        facts: what it measured; JSON values.

    Returns:
        The receipt that was written.
    """
    records = []
    for name, content in files.items():
        data = table_bytes(content) if isinstance(content, pa.Table) else content
        store.write_bytes(unit_url(folder, key, name), data)
        rows = content.num_rows if isinstance(content, pa.Table) else None
        records.append(FileRecord(name, rows, len(data), store.checksum(data)))
    return commit_receipt(folder, key, records, counters, facts)


def commit_receipt(
    folder: str,
    key: str,
    records: Sequence[FileRecord],
    counters: Mapping[str, int] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Receipt:
    """Write the receipt of a unit whose files are there already; arguments as of `commit_unit`."""
    receipt = Receipt(key, tuple(records), dict(counters or {}), dict(facts or {}))
    store.write_bytes(unit_url(folder, key, RECEIPT), canonical_json(receipt))
    return receipt


def unit_url(folder: str, key: str, name: str) -> str:
    """Where a unit's file lies."""
    return store.join(folder, "units", key, name)


def read_receipt(folder: str, key: str) -> Receipt | None:
    """The receipt of a finished unit, None where it is not finished."""
    try:
        return _receipt(json.loads(store.read_bytes(unit_url(folder, key, RECEIPT))))
    except FileNotFoundError:
        return None


def _receipt(record: dict[str, Any]) -> Receipt:
    return Receipt(
        key=record["key"],
        files=tuple(FileRecord(**file) for file in record["files"]),
        counters=record["counters"],
        facts=record["facts"],
    )


def read_file(folder: str, receipt: Receipt, name: str) -> bytes:
    """A unit's file, checked against its receipt.

    Raises:
        InfrastructureError: the file is not the one the receipt tells of.
    """
    url = unit_url(folder, receipt.key, name)
    record = next(file for file in receipt.files if file.name == name)
    try:
        data = store.read_bytes(url)
    except FileNotFoundError as error:
        raise InfrastructureError(
            f"{error}, though its receipt is there; delete its folder and run again"
        ) from error
    if store.checksum(data) != record.checksum:
        raise InfrastructureError(
            f"{store.redact(url)}: not what its receipt tells; delete its folder and run again"
        )
    return data


def read_table(folder: str, receipt: Receipt, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A unit's table, checked against its receipt; raises what `read_file` does."""
    data = read_file(folder, receipt, name)
    return pq.read_table(pa.BufferReader(data), columns=list(columns) if columns is not None else None)


def read_row_groups(
    folder: str, receipt: Receipt, name: str, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """`read_table` a row group at a time: memory holds the file and one row group; a table without rows has one."""
    file = pq.ParquetFile(pa.BufferReader(read_file(folder, receipt, name)))
    chosen = list(columns) if columns is not None else None
    for group in range(file.num_row_groups):
        yield file.read_row_group(group, chosen)
    if not file.num_row_groups:
        yield file.read(chosen)


def sum_counters(receipts: Sequence[Receipt]) -> dict[str, int]:
    """Counters of all units, added up."""
    total: Counter[str] = Counter()
    for receipt in receipts:
        total.update(receipt.counters)
    return dict(sorted(total.items()))


def balance(stage: str, total: int, parts: Mapping[str, int]) -> None:
    """Fail unless the parts add up to the total.

    Raises:
        BooksError: they do not.
    """
    if total != sum(parts.values()):
        accounts = " + ".join(f"{name} {count}" for name, count in parts.items())
        raise BooksError(
            f"{stage}: the books do not balance: {total} read, but {accounts} = {sum(parts.values())}"
        )


def commit_manifest(folder: str, manifest: Manifest) -> Manifest:
    """Write the manifest: from now on the artifact exists."""
    text = json.dumps(dataclasses.asdict(manifest), sort_keys=True, indent=1, default=dict)
    store.write_bytes(manifest_url(folder, manifest.fingerprint), text.encode())
    return manifest


def manifest_url(folder: str, identity: str) -> str:
    """Where the manifest of the artifact `identity` lies."""
    return store.join(folder, identity, MANIFEST)


def read_manifest(folder: str, identity: str) -> Manifest | None:
    """The artifact with this fingerprint, None where it is not whole.

    Raises:
        InfrastructureError: the file tells of another artifact.
    """
    url = manifest_url(folder, identity)
    try:
        record = json.loads(store.read_bytes(url))
    except FileNotFoundError:
        return None
    if record["fingerprint"] != identity or record["schema_version"] != SCHEMA_VERSION:
        raise InfrastructureError(
            f"{store.redact(url)}: holds artifact {record['fingerprint']}, expected {identity}"
        )
    record["units"] = tuple(_receipt(unit) for unit in record["units"])
    return Manifest(**record)


def changed_params(folder: str, params: Mapping[str, Any]) -> list[str] | None:
    """Which parameters differ from the nearest artifact of this stage that already exists.

    Returns:
        Lines such as `n_neighbors: 5 -> 7`, fewest of all earlier artifacts; None where there is no
        earlier one.
    """
    nearest: list[str] | None = None
    params = json.loads(canonical_json(params))  # What was a tuple is a list in a manifest.
    for file in store.list_files(store.join(folder, "*", MANIFEST)):
        before = json.loads(store.read_bytes(file.url))["params"]
        names = sorted(before.keys() | params.keys())
        lines = [
            f"{name}: {before.get(name)} -> {params.get(name)}"
            for name in names
            if before.get(name) != params.get(name)
        ]
        if nearest is None or len(lines) < len(nearest):
            nearest = lines
    return nearest
