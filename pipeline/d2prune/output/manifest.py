"""The last step of an output: what speaks of the whole folder, and `manifest.json`, whose presence says it is whole.

Reads receipts and the uids the units left in `work_dir`; writes `subset.npy`, `sizes.json`,
`meta.json`, `train.sh`, and the manifest last. No times and no machine names: the same pool,
selection and parameters give the same bytes.
"""

import dataclasses
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from d2prune import store
from d2prune.errors import BooksError, InfrastructureError, UserError
from d2prune.inputs.find import SourceShard
from d2prune.output import layout, subset, training
from d2prune.output.shard_writer import UIDS, output_files, put_bytes
from d2prune.parts.files import DECISIONS
from d2prune.store import artifacts
from d2prune.store.artifacts import FileRecord, Manifest, Receipt
from d2prune.write.worker import DecisionsUnit, KeptUnit, TarUnit, Unit, WriteParams

log = logging.getLogger(__name__)

FORMAT = 1
"""Raised whenever an output folder changes meaning."""


@dataclass(frozen=True)
class InputShard:
    """An input tar as the manifest names it: `name` is what tables say in `shard`."""

    url: str
    name: str
    size: int


@dataclass(frozen=True)
class OutputManifest:
    """The books of an output folder.

    Attributes:
        identity: fingerprint of all that decides its content; the claim's too.
        params: how it was made.
        counts: `pool` (samples to choose from), `selected`, `written`, `shards`, and repairs.
        inputs: the pool's tars or tables in canonical order.
        files: every other object of the folder, by name.
    """

    identity: str
    params: Mapping[str, Any]
    counts: Mapping[str, int]
    inputs: tuple[InputShard, ...]
    files: tuple[FileRecord, ...]
    format: int = FORMAT

    @property
    def is_tables(self) -> bool:
        """Whether it tells of kept samples in tables, without tars."""
        return any(file.name.startswith(layout.KEPT_PREFIX) for file in self.files)

    def rows(self, name: str) -> int | None:
        """Rows of the table `name`, None where there is no such file."""
        return next((file.rows for file in self.files if file.name == name), None)


def finish(
    output: str,
    work_dir: str,
    identity: str,
    params: WriteParams,
    shards: Sequence[SourceShard],
    select: Manifest,
    units: Sequence[Unit],
    receipts: Sequence[Receipt],
) -> OutputManifest:
    """Close the output of a run.

    Args:
        output: URL of the output folder, claimed by `identity`.
        work_dir: the run's; the units' receipts are in its `write`.
        identity: as claimed.
        params: what the units were planned with.
        shards: the pool in canonical order.
        select: the select artifact.
        units: as planned.
        receipts: one per unit, in the order of `units`.

    Raises:
        BooksError: written is not selected, or the decisions do not list the whole pool.
    """
    tars = [receipt for unit, receipt in zip(units, receipts, strict=True) if isinstance(unit, TarUnit)]
    lists = [
        receipt for unit, receipt in zip(units, receipts, strict=True) if isinstance(unit, DecisionsUnit)
    ]
    selected = sum(unit.counters["kept"] for unit in select.units)
    pool = sum(unit.rows(DECISIONS) for unit in select.units)
    listed = artifacts.sum_counters(lists)
    artifacts.balance("write: decisions", pool, {"listed": listed.get("listed", 0)})
    artifacts.balance("write: kept decisions", selected, {"listed as kept": listed.get("listed_kept", 0)})
    others = [file for receipt in lists for file in output_files(receipt)]
    tables = [receipt for unit, receipt in zip(units, receipts, strict=True) if isinstance(unit, KeptUnit)]
    uid = next((unit.uid for unit in units if isinstance(unit, KeptUnit)), None)
    if tables:
        parameters = {"uid": uid}
        return close_tables(output, work_dir, identity, parameters, pool, selected, shards, tables, others)
    return close(
        output=output,
        work_dir=work_dir,
        identity=identity,
        params=dataclasses.asdict(params),
        samples_per_shard=params.samples_per_shard,
        pool=pool,
        selected=selected,
        shards=shards,
        tars=tars,
        others=others,
    )


def close(
    *,
    output: str,
    work_dir: str,
    identity: str,
    params: Mapping[str, Any],
    samples_per_shard: int,
    pool: int,
    selected: int,
    shards: Sequence[SourceShard],
    tars: Sequence[Receipt],
    others: Sequence[FileRecord],
    more_counts: Mapping[str, int] | None = None,
) -> OutputManifest:
    """Balance the books of the tars and write what speaks of all of them.

    Args:
        output: URL of the output folder.
        work_dir: where the units' receipts are, in `write`.
        identity: as claimed.
        params: to record.
        samples_per_shard: samples in each tar but the last.
        pool: samples there were to choose from.
        selected: samples that must have been written.
        shards: the pool's tars in canonical order.
        tars: receipts of the output tars, in order.
        others: files of the output already written beside them.
        more_counts: to record with the counts.

    Raises:
        BooksError: the tars do not hold what was selected.
    """
    counters = artifacts.sum_counters(tars)
    written = counters.pop("written", 0)
    counters.pop("tars", None)
    artifacts.balance("write", selected, {"written": written})
    counts = [receipt.counters["written"] for receipt in tars]
    if any(count != samples_per_shard for count in counts[:-1]):
        raise BooksError(f"write: a tar before the last does not hold {samples_per_shard} samples: {counts}")
    sizes = {layout.SHARD_FORMAT.format(i): count for i, count in enumerate(counts)}
    meta = {
        "output_shard_count": len(tars),
        "output_shard_format": layout.SHARD_FORMAT,
        "output_shard_stats_format": layout.STATS_FORMAT,
        "shard_size": samples_per_shard,
        "processed_count": pool,
        "output_count": written,
    }
    small = training.warning(len(tars), training.DEFAULT_WORKERS, 1) if tars else None
    if small:
        log.info("output %s: %s", store.redact(output), small)
    size, checksum = subset.write(store.join(output, layout.SUBSET), lambda: _uids(work_dir, tars))
    files = [
        *(file for receipt in tars for file in output_files(receipt)),
        *others,
        FileRecord(layout.SUBSET, written, size, checksum),
        put_bytes(output, layout.SIZES, _json(sizes)),
        put_bytes(output, layout.META, _json(meta)),
        put_bytes(output, layout.TRAIN, training.script(output, len(tars), written).encode()),
    ]
    manifest = OutputManifest(
        identity=identity,
        params=params,
        counts={"pool": pool, "selected": selected, "written": written, "shards": len(tars), **counters}
        | dict(more_counts or {}),
        inputs=tuple(InputShard(store.redact(shard.url), shard.name, shard.size) for shard in shards),
        files=tuple(sorted(files, key=lambda file: file.name)),
    )
    put_bytes(output, layout.MANIFEST, _json(dataclasses.asdict(manifest)))
    return manifest


def close_tables(
    output: str,
    work_dir: str,
    identity: str,
    params: Mapping[str, Any],
    pool: int,
    selected: int,
    shards: Sequence[SourceShard],
    tables: Sequence[Receipt],
    others: Sequence[FileRecord],
) -> OutputManifest:
    """Balance the books of the tables of kept samples and write what speaks of all of them.

    Args:
        output: URL of the output folder.
        work_dir: where the units' receipts are, in `write`.
        identity: as claimed.
        params: to record.
        pool: samples there were to choose from.
        selected: samples that must have been written.
        shards: the pool's parts in canonical order.
        tables: receipts of the tables, in order.
        others: files of the output already written beside them.

    Raises:
        BooksError: the tables do not hold what was selected.
    """
    written = artifacts.sum_counters(tables).get("written", 0)
    artifacts.balance("write", selected, {"written": written})
    meta = {"output_shard_count": 0, "processed_count": pool, "output_count": written}
    size, checksum = subset.write(store.join(output, layout.SUBSET), lambda: _uids(work_dir, tables))
    files = [
        *(file for receipt in tables for file in output_files(receipt)),
        *others,
        FileRecord(layout.SUBSET, written, size, checksum),
        put_bytes(output, layout.META, _json(meta)),
    ]
    # Parts of one table share its name; the manifest tells of files.
    inputs = dict.fromkeys(InputShard(store.redact(shard.url), shard.name, shard.size) for shard in shards)
    manifest = OutputManifest(
        identity=identity,
        params=params,
        counts={"pool": pool, "selected": selected, "written": written, "shards": 0},
        inputs=tuple(inputs),
        files=tuple(sorted(files, key=lambda file: file.name)),
    )
    put_bytes(output, layout.MANIFEST, _json(dataclasses.asdict(manifest)))
    return manifest


def _json(value: Any) -> bytes:
    """A file of the output as JSON: the same value, the same bytes."""
    return json.dumps(value, sort_keys=True, indent=1, default=dict).encode() + b"\n"


def _uids(work_dir: str, tars: Sequence[Receipt]) -> Iterator[subset.UidArray]:
    """The uids each unit wrote, checked against its receipt.

    Raises:
        InfrastructureError: a file is not the one its receipt tells of.
    """
    folder = store.join(work_dir, "write")
    for receipt in tars:
        url = artifacts.unit_url(folder, receipt.key, UIDS)
        data = store.read_bytes(url)
        if store.checksum(data) != receipt.files[0].checksum:
            raise InfrastructureError(f"{store.redact(url)}: not what its receipt tells; delete its folder")
        yield np.frombuffer(data, dtype=subset.DTYPE)


def read_manifest(output: str) -> OutputManifest | None:
    """The manifest of an output folder, None where it is not whole.

    Raises:
        UserError: there is one that this version cannot read.
    """
    url = store.join(output, layout.MANIFEST)
    try:
        data = store.read_bytes(url)
    except FileNotFoundError:
        return None
    try:
        record = json.loads(data)
        if record["format"] != FORMAT:
            raise UserError(f"{store.redact(url)}: format {record['format']}, this version reads {FORMAT}")
        record["inputs"] = tuple(InputShard(**shard) for shard in record["inputs"])
        record["files"] = tuple(FileRecord(**file) for file in record["files"])
        return OutputManifest(**record)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{store.redact(url)}: not the manifest of an output folder: {error}") from error
