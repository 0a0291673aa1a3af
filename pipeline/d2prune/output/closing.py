"""Close an output folder: balance its sample counts, then write its summary files and its manifest.

Reads the receipts and uids that the units left in `work_dir`. Writes `subset.npy`, `meta.json`, for
an output of tars also `sizes.json` and `train.sh`, and `manifest.json` last. Invariant: as many
samples were written as were selected; otherwise no manifest is written.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from d2prune import store
from d2prune.errors import BooksError
from d2prune.inputs.find import SourceShard
from d2prune.output import layout, receipts, subset, training
from d2prune.output.manifest import InputShard, OutputManifest, encode_record, write_manifest
from d2prune.output.objects import write_object
from d2prune.store import artifacts
from d2prune.store.artifacts import FileRecord, Receipt

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OutputRun:
    """The run that writes an output folder, as far as its manifest records it.

    Attributes:
        output: URL of the output folder.
        work_dir: holds the units' receipts, in `write`.
        identity: fingerprint of everything that decides the output's content, as claimed.
        params: parameters to record.
        pool: samples to choose from.
        selected: samples that must have been written.
        shards: the pool's tars or parts of tables, in canonical order.
    """

    output: str
    work_dir: str
    identity: str
    params: Mapping[str, Any]
    pool: int
    selected: int
    shards: Sequence[SourceShard]


def close_tar_output(
    run: OutputRun,
    samples_per_shard: int,
    tars: Sequence[Receipt],
    others: Sequence[FileRecord],
    more_counts: Mapping[str, int] | None = None,
    shared: bool = False,
) -> OutputManifest:
    """Close an output of tars.

    Args:
        run: the run that wrote it.
        samples_per_shard: samples in each tar but the last, or with `shared` at most.
        tars: receipts of the output tars, in order.
        others: other objects already written to the folder.
        more_counts: counts to record in addition.
        shared: whether outputs share the tars.

    Raises:
        BooksError: the tars do not hold the selected samples.
    """
    counters = artifacts.sum_counters(tars)
    written = counters.pop("written", 0)
    counters.pop("tars", None)
    artifacts.balance("write", run.selected, {"written": written})
    sizes = {receipts.tar_of(receipt): receipt.counters["written"] for receipt in tars}
    for name, count in () if shared else list(sizes.items())[:-1]:
        if count != samples_per_shard:
            raise BooksError(f"write: {name}: found {count} samples; expected {samples_per_shard}")
    meta = describe_tars(len(tars), samples_per_shard, run.pool, written, shared)
    names = list(sizes) if shared else []
    script = training.script(run.output, len(tars), written, names)
    hint = training.describe_idle_workers(len(tars), training.DEFAULT_WORKERS) if tars else None
    if hint:
        log.info("output %s: %s", store.redact(run.output), hint)
    if set_aside := counters.get("executable_set_aside"):
        log.warning(
            "output %s: %d members that a data loader would execute were set aside as `.*-unsafe`",
            store.redact(run.output),
            set_aside,
        )
    objects = [
        *_list_objects(tars),
        *others,
        _write_subset(run, tars, written),
        write_object(run.output, layout.SIZES, encode_record(sizes)),
        write_object(run.output, layout.META, encode_record(meta)),
        write_object(run.output, layout.TRAIN, script.encode()),
    ]
    all_counts = {"written": written, "shards": len(tars), **counters, **(more_counts or {})}
    inputs = [InputShard(store.recordable(shard.url), shard.name, shard.size) for shard in run.shards]
    return _write_manifest(run, all_counts, inputs, objects)


def close_table_output(
    run: OutputRun, tables: Sequence[Receipt], others: Sequence[FileRecord]
) -> OutputManifest:
    """Close an output of tables of kept samples.

    Args:
        run: the run that wrote it.
        tables: receipts of the tables, in order.
        others: other objects already written to the folder.

    Raises:
        BooksError: the tables do not hold the selected samples.
    """
    written = artifacts.sum_counters(tables).get("written", 0)
    artifacts.balance("write", run.selected, {"written": written})
    meta = describe_tables(run.pool, written)
    objects = [
        *_list_objects(tables),
        *others,
        _write_subset(run, tables, written),
        write_object(run.output, layout.META, encode_record(meta)),
    ]
    # A large table is several parts of the pool; the manifest lists each table once.
    inputs = dict.fromkeys(
        InputShard(store.recordable(shard.url), shard.name, shard.size) for shard in run.shards
    )
    return _write_manifest(run, {"written": written, "shards": 0}, inputs, objects)


def describe_tars(
    shards: int, samples_per_shard: Any, pool: int, written: int, shared: bool = False
) -> dict[str, Any]:
    """The content of `meta.json` of an output of tars."""
    formats = {
        "output_shard_format": layout.SHARD_FORMAT,
        "output_shard_stats_format": layout.STATS_FORMAT,
    }
    return {
        "output_shard_count": shards,
        **({} if shared else formats),
        "shard_size": samples_per_shard,
        **_describe_counts(pool, written),
    }


def describe_tables(pool: int, written: int) -> dict[str, Any]:
    """The content of `meta.json` of an output of tables."""
    return {"output_shard_count": 0, **_describe_counts(pool, written)}


def _describe_counts(pool: int, written: int) -> dict[str, int]:
    return {"processed_count": pool, "output_count": written}


def _list_objects(units: Iterable[Receipt]) -> list[FileRecord]:
    return [record for receipt in units for record in receipts.written_objects(receipt)]


def _write_subset(run: OutputRun, units: Sequence[Receipt], written: int) -> FileRecord:
    url = store.join(run.output, layout.SUBSET)
    size, checksum = subset.write(url, lambda: receipts.read_uids(run.work_dir, units))
    return FileRecord(layout.SUBSET, written, size, checksum)


def _write_manifest(
    run: OutputRun, counts: Mapping[str, int], inputs: Iterable[InputShard], objects: Iterable[FileRecord]
) -> OutputManifest:
    manifest = OutputManifest(
        identity=run.identity,
        params=run.params,
        counts={"pool": run.pool, "selected": run.selected, **counts},
        inputs=tuple(inputs),
        files=tuple(sorted(objects, key=lambda file: file.name)),
    )
    write_manifest(run.output, manifest)
    return manifest
