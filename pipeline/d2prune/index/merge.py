"""The merged view: a local folder that faiss opens without d2prune, and the table of its samples.

    pool.faiss     `faiss.read_index` opens it; finds pool.ivfdata by its absolute path
    pool.ivfdata   the lists of all partitions, one after the other; mapped into memory
    ids.parquet    id, uid, shard, key, kept of every sample, by id
    index.json     written last: what the folder is made from

Reads the shards of the index artifact, from any store. The one shard of a small pool is linked, not
copied, if it is on the same disk.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from d2prune import store
from d2prune.errors import UserError
from d2prune.index.job import IndexJob
from d2prune.index.views import make_view
from d2prune.parts.files import DECISIONS
from d2prune.runs.artifact_kinds import (
    BODY,
    IDS,
    RECORD,
    SHARD_BODY,
    STAGE_NAME,
    VIEW,
    fingerprint_of,
)
from d2prune.runs.finished import FinishedRun
from d2prune.store import artifacts
from d2prune.store.artifacts import Manifest, Receipt
from d2prune.store.parquet_format import parquet_options

IDS_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("uid", pa.string()),
        ("shard", pa.string()),
        ("key", pa.string()),
        ("kept", pa.bool_()),
    ]
)
"""One row per sample: `id` is the one in the index, the canonical position and the row's number."""

_BLOCK = 2**23


def choose_folder(run: FinishedRun, output: str | None) -> str:
    """Return the local path of the folder for the merged view; refuse one that holds anything else.

    Raises:
        UserError: it is not local, or holds other files or the index of another graph.
    """
    if output is None:
        if not store.is_local(run.work_dir):
            raise UserError(
                "--output: found nothing; expected a local folder, since faiss maps the index into memory "
                f"and work_dir is {store.redact(run.work_dir)}"
            )
        folder = store.join(run.work_dir, STAGE_NAME, fingerprint_of(run.graph.fingerprint))
        return store.resolve(folder)
    store.check_folder("--output", output)
    if not store.is_local(output):
        raise UserError(
            f"--output: found {store.redact(output)}; expected a local folder, since faiss maps the index "
            "into memory"
        )
    folder = store.resolve(output)
    names = store.list_entries(folder)
    foreign = [name for name in names if name not in (VIEW, BODY, IDS, RECORD) and not _is_temporary(name)]
    if foreign:
        raise UserError(f"--output {folder}: found {foreign[0]}; expected an empty folder, or an index")
    check_graph(read_record(folder), run, folder)
    return folder


def _is_temporary(name: str) -> bool:
    return name.startswith(store.TEMPORARY)


def read_record(folder: str) -> dict[str, Any] | None:
    """Read what a merged view is made from; None if there is no complete one.

    Raises:
        UserError: the record is damaged.
    """
    url = store.join(folder, RECORD)
    try:
        record = artifacts.read_json(url)
        if not all(isinstance(record[name], str) for name in ("graph", "select")):
            raise ValueError("expected the graph and the selection that it is made from")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, RecursionError) as error:
        raise UserError(
            f"{url}: cannot be read ({error}); expected the record of an index: delete it and run "
            "`d2prune index` again"
        ) from error
    return record


def check_graph(record: dict[str, Any] | None, run: FinishedRun, folder: str) -> None:
    """Refuse the index of another graph.

    Raises:
        UserError: it is one.
    """
    if record is not None and record["graph"] != run.graph.fingerprint:
        raise UserError(
            f"{folder}: found the index of graph {record['graph']}; expected that of graph "
            f"{run.graph.fingerprint}, of this run"
        )


def write_merged(job: IndexJob, manifest: Manifest, folder: str) -> None:
    """Write what is missing of the merged view.

    Args:
        job: the index.
        manifest: of its artifact.
        folder: from `choose_folder`.
    """
    run = job.run
    path = os.path.join(folder, BODY)
    record = {
        "fingerprint": job.fingerprint,
        "graph": run.graph.fingerprint,
        "select": run.select.fingerprint,
        "samples": len(run),
        "dimensions": job.n_dims,
        "features": run.features,
        "embeddings": run.embeddings_file,
        "body": path,
        "bytes": len(run) * job.row_bytes,
    }
    found = read_record(folder)
    names = set(store.list_entries(folder))
    # Without a record, only the work_dir's own folder, which is named by the index, shows whose body it is.
    is_own = found["fingerprint"] == job.fingerprint if found else os.path.basename(folder) == job.fingerprint
    has_body = is_own and BODY in names and os.path.getsize(path) == record["bytes"]
    if found == record and has_body and {VIEW, IDS} <= names:
        return
    if found is not None:
        store.delete([os.path.join(folder, RECORD)])
    if not has_body:
        _write_body(job, manifest.units, path)
    store.write_bytes(os.path.join(folder, VIEW), make_view(*job.layout(), path), store.Sync.LATER)
    _write_ids(run, os.path.join(folder, IDS))
    artifacts.write_json(os.path.join(folder, RECORD), record)


def _write_body(job: IndexJob, shards: Sequence[Receipt], path: str) -> None:
    if len(shards) == 1 and store.is_local(job.folder):
        source = store.resolve(artifacts.unit_url(job.folder, shards[0].key, SHARD_BODY))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # Not on the same disk, or a filesystem without links: copied below.
        with contextlib.suppress(OSError):
            if os.path.exists(path):
                os.unlink(path)
            os.link(source, path)
            return
    with store.writer(path, store.Sync.LATER) as stream:
        for shard in shards:
            for block in _read_body(job.folder, shard):
                stream.write(block)


def _read_body(folder: str, shard: Receipt) -> Iterator[bytes]:
    """Yield the body of a shard in blocks.

    Raises:
        DamagedFileError: it is not what the receipt lists.
    """
    url = artifacts.unit_url(folder, shard.key, SHARD_BODY)
    expected = next(file for file in shard.files if file.name == SHARD_BODY)
    digest, size = store.new_checksum(), 0
    with store.open_read(url) as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            size += len(block)
            yield block
    if size != expected.size or digest.hexdigest() != expected.checksum:
        raise artifacts.describe_damage(url, f"found {size} bytes that are not those of its receipt")


def _write_ids(run: FinishedRun, path: str) -> None:
    with (
        store.writer(path, store.Sync.LATER) as stream,
        pq.ParquetWriter(stream, IDS_SCHEMA, **parquet_options(IDS_SCHEMA)) as writer,
    ):
        for start, table in run.parts.read_all(DECISIONS, ["uid", "shard", "key", "kept"]):
            ids = pa.array(np.arange(start, start + len(table)))
            writer.write_table(table.add_column(0, "id", ids).cast(IDS_SCHEMA))
