"""Typed artifacts: what a stage writes to `work_dir`, and how later runs find it complete.

    work_dir/<stage>/units/<unit key>/...          the files of one unit of work
    work_dir/<stage>/units/<unit key>/receipt.json  written last: the unit is complete
    work_dir/<stage>/<fingerprint>/manifest.json    written last: the artifact is complete

A unit's key contains a hash of everything that decides its content, so every artifact that needs
the unit shares it: when a pool grows, the parts of its old shards are used again. The fingerprint
of an artifact is a hash of its parameters and of the fingerprints of its inputs. Manifests and
receipts contain no times and no machine names, so the same work gives the same bytes.
"""

import dataclasses
import hashlib
import io
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from d2prune import store
from d2prune.errors import BooksError, DamagedFileError, InfrastructureError
from d2prune.store.manifest_file import load_head, load_manifest, write_manifest
from d2prune.store.parquet_format import footer_checksum, parquet_options
from d2prune.store.records import FileRecord as FileRecord
from d2prune.store.records import Manifest as Manifest
from d2prune.store.records import Receipt as Receipt
from d2prune.store.records import parse_receipt
from d2prune.store.schemas import SCHEMA_VERSION

log = logging.getLogger(__name__)

RECEIPT = "receipt.json"
MANIFEST = "manifest.json"
_CHECKSUM = "checksum"

_CANONICAL: Mapping[str, Any] = {"sort_keys": True, "separators": (",", ":"), "allow_nan": False}
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading a damaged manifest or receipt raises."""

ROWS_PER_GROUP = 10_000
"""Rows per parquet row group of a table that `store.table_writer` writes."""


def canonical_json(value: Any) -> bytes:
    """A value, dataclasses included, as JSON with sorted keys: the text that fingerprints hash."""
    return json.dumps(value, default=_to_dict, **_CANONICAL).encode()


def _to_dict(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # `dataclasses.asdict` would copy every value, which takes half the time of a fingerprint.
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} cannot be part of a fingerprint")


def fingerprint(*values: Any) -> str:
    """128 bits of BLAKE2b over the canonical JSON of the values and the schema version, in hex."""
    return hashlib.blake2b(canonical_json([SCHEMA_VERSION, *values]), digest_size=16).hexdigest()


def unit_key(name: str, *identity: Any) -> str:
    """A readable, unique folder name for a unit whose content depends on `identity` alone."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[-48:]
    return f"{readable}-{fingerprint(name, *identity)[:16]}"


def table_bytes(table: pa.Table) -> bytes:
    """A table as parquet; the same rows give the same bytes."""
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=100_000, **parquet_options(table.schema))
    return sink.getvalue()


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
        files: name -> table, to be written as parquet, or bytes.
        counters: see `Receipt`.
        facts: see `Receipt`.

    Returns:
        The receipt written.
    """
    records = []
    for name, content in files.items():
        rows, footer = None, None
        if isinstance(content, pa.Table):
            data, rows = table_bytes(content), content.num_rows
            footer = footer_checksum(data)
        else:
            data = content
        store.write_bytes(unit_url(folder, key, name), data, store.Sync.LATER)
        records.append(FileRecord(name, rows, len(data), store.checksum(data), footer))
    return commit_receipt(folder, key, records, counters, facts)


def commit_receipt(
    folder: str,
    key: str,
    records: Sequence[FileRecord],
    counters: Mapping[str, int] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Receipt:
    """Write the receipt of a unit whose files are written; arguments as of `commit_unit`."""
    receipt = Receipt(key, tuple(records), dict(counters or {}), dict(facts or {}))
    store.write_bytes(unit_url(folder, key, RECEIPT), _seal(receipt, **_CANONICAL))
    return receipt


def unit_url(folder: str, key: str, name: str) -> str:
    """URL of a file of a unit."""
    return store.join(folder, "units", key, name)


def read_receipt(folder: str, key: str) -> Receipt | None:
    """The receipt of a unit; None if the unit is not complete, or its receipt is damaged."""
    url = unit_url(folder, key, RECEIPT)
    try:
        return parse_receipt(read_json(url))
    except FileNotFoundError:
        return None
    except _DAMAGE as error:
        log.warning("%s: damaged, ignored (%s)", store.redact(url), error)
        return None


def read_json(url: str) -> dict[str, Any]:
    """Read the JSON object of a manifest or receipt.

    Raises:
        ValueError: the file holds anything else, or its content does not have the checksum it states.
        FileNotFoundError: there is none.
    """
    value = json.loads(store.read_bytes(url))
    if not isinstance(value, dict):
        raise ValueError(f"found {type(value).__name__}; expected an object")
    if value.pop(_CHECKSUM, None) != _checksum_of(value):
        raise ValueError("found a checksum that is not that of its content")
    return value


def write_json(url: str, value: Mapping[str, Any]) -> None:
    """Write a JSON object that `read_json` verifies."""
    store.write_bytes(url, _seal(value, sort_keys=True, indent=1))


def _seal(record: Manifest | Receipt | Mapping[str, Any], **options: Any) -> bytes:
    """Encode a record with its checksum, so that a damaged one is not taken for another.

    The checksum is that of what is stored, which holds no credentials.
    """
    text = store.encode_record(record, sort_keys=True)
    return store.encode_record(json.loads(text) | {_CHECKSUM: store.checksum(text)}, **options)


def _checksum_of(entries: Mapping[str, Any]) -> str:
    return store.checksum(store.encode_record(entries, sort_keys=True))


def read_file(folder: str, receipt: Receipt, name: str) -> bytes:
    """A file of a unit, its checksum verified.

    Raises:
        DamagedFileError: the file is missing or does not match the receipt.
    """
    url = unit_url(folder, receipt.key, name)
    record = next(file for file in receipt.files if file.name == name)
    try:
        data = store.read_bytes(url)
    except FileNotFoundError as error:
        raise describe_damage(url, "not found, but its receipt exists", listed=True) from error
    if len(data) != record.size:
        fault = f"found {len(data)} bytes; expected {record.size} as in its receipt"
        raise describe_damage(url, fault, listed=True)
    if (found := store.checksum(data)) != record.checksum:
        raise describe_damage(url, f"found checksum {found}; expected {record.checksum} as in its receipt")
    return data


def describe_damage(url: str, fault: str, listed: bool = False) -> DamagedFileError:
    """The error to raise for a damaged file of a unit.

    Args:
        url: of the file.
        fault: what is wrong with it.
        listed: whether a listing shows it, so that the next run finds it by itself.
    """
    receipt = store.join(url.rpartition("/")[0], RECEIPT)
    remedy = "the next run rebuilds it"
    if not listed:
        remedy = f"to rebuild it, delete {store.redact(receipt)} and start the run again"
    return DamagedFileError(f"{store.redact(url)}: {fault}", receipt, remedy)


def read_table(folder: str, receipt: Receipt, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A table of a unit, its checksum verified; raises what `read_file` does."""
    # `pq.read_table` would import `pyarrow.dataset`, for nothing.
    file = pq.ParquetFile(pa.BufferReader(read_file(folder, receipt, name)))
    return file.read(columns=list(columns) if columns is not None else None)


def read_row_groups(
    folder: str, receipt: Receipt, name: str, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """`read_table` one row group at a time, so that memory holds the file and one group.

    A table without rows yields one empty group.
    """
    file = pq.ParquetFile(pa.BufferReader(read_file(folder, receipt, name)))
    chosen = list(columns) if columns is not None else None
    for group in range(file.num_row_groups):
        yield file.read_row_group(group, chosen)
    if not file.num_row_groups:
        yield file.read(chosen)


def sum_counters(receipts: Sequence[Receipt]) -> dict[str, int]:
    """Sums of the counters of all units."""
    total: Counter[str] = Counter()
    for receipt in receipts:
        total.update(receipt.counters)
    return dict(sorted(total.items()))


def balance(stage: str, total: int, parts: Mapping[str, int]) -> None:
    """Check that the parts add up to the total.

    Raises:
        BooksError: they do not.
    """
    if total != sum(parts.values()):
        counts = " + ".join(f"{name} {count}" for name, count in parts.items())
        raise BooksError(
            f"{stage}: sample counts do not balance: found {counts} = {sum(parts.values())}; expected {total}"
        )


def commit_manifest(folder: str, manifest: Manifest) -> Manifest:
    """Write the manifest, which makes the artifact complete."""
    write_manifest(manifest_url(folder, manifest.fingerprint), manifest)
    return manifest


def manifest_url(folder: str, identity: str) -> str:
    """URL of the manifest of the artifact with fingerprint `identity`."""
    return store.join(folder, identity, MANIFEST)


def read_manifest(folder: str, identity: str) -> Manifest | None:
    """The artifact with fingerprint `identity`; None if it is not complete, or its manifest is damaged.

    Raises:
        InfrastructureError: the file is the manifest of another artifact.
    """
    return _read_checked(folder, identity, load_manifest)


def read_head(folder: str, identity: str) -> Manifest | None:
    """That artifact without its units, which takes no time however many it has; no checksum is compared.

    Raises:
        InfrastructureError: the file is the manifest of another artifact.
    """
    return _read_checked(folder, identity, _load_without_units)


def _load_without_units(url: str) -> Manifest:
    head = load_head(url)
    head.pop(_CHECKSUM, None)
    return Manifest(**head | {"units": ()})


def _read_checked(folder: str, identity: str, load: Callable[[str], Manifest]) -> Manifest | None:
    url = manifest_url(folder, identity)
    try:
        manifest = load(url)
    except FileNotFoundError:
        return None
    except _DAMAGE as error:
        log.warning("%s: damaged, ignored (%s)", store.redact(url), error)
        return None
    if (manifest.fingerprint, manifest.schema_version) != (identity, SCHEMA_VERSION):
        raise InfrastructureError(
            f"{store.redact(url)}: found artifact {manifest.fingerprint}, schema version "
            f"{manifest.schema_version}; expected {identity}, version {SCHEMA_VERSION}"
        )
    return manifest


def changed_params(folder: str, params: Mapping[str, Any]) -> list[str] | None:
    """The parameters that differ from those of the most similar artifact of this stage.

    Returns:
        Lines such as `n_neighbors: 5 -> 7`; None if the stage has no artifact yet.
    """
    nearest: list[str] | None = None
    params = json.loads(canonical_json(params))  # Manifests hold lists instead of tuples.
    for file in store.list_files(folder, f"*/{MANIFEST}"):
        try:
            before = dict(load_head(file.url)["params"])
        except (*_DAMAGE, FileNotFoundError) as error:
            log.warning("%s: damaged, ignored (%s)", store.redact(file.url), error)
            continue
        names = sorted(before.keys() | params.keys())
        lines = [
            f"{name}: {before.get(name)} -> {params.get(name)}"
            for name in names
            if before.get(name) != params.get(name)
        ]
        if nearest is None or len(lines) < len(nearest):
            nearest = lines
    return nearest
