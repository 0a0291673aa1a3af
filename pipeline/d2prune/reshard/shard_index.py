"""Index an input tar: uid, key and byte range of every sample, which is all that resharding by uid needs.

A tar is streamed once. The index does not depend on the subset file, so it serves every subset of
the same pool.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import InfrastructureError, UserError
from d2prune.inputs.rejects import Reject
from d2prune.inputs.sample_id import CAPTION_EXTENSION, IMAGE_EXTENSIONS, JSON_EXTENSION, sample_uid
from d2prune.inputs.shards import TarShard
from d2prune.inputs.tar.reader import TarReader, parse_sample
from d2prune.store import artifacts
from d2prune.store.artifacts import Receipt

if TYPE_CHECKING:
    from d2prune.inputs.tar.index import SampleBatch

Reader = Callable[[int, int], bytes]

INDEX = "index.parquet"

SCHEMA = pa.schema(
    [
        ("uid", pa.string()),
        ("shard", pa.string()),
        ("key", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
    ]
)
"""One row per sample, in tar order; `offset` and `size` are its byte range, as in the embed artifact."""


@dataclass(frozen=True)
class IndexUnit:
    """One input tar to index."""

    key: str
    shard: TarShard


def plan(shards: Sequence[TarShard]) -> list[IndexUnit]:
    """List one unit per tar, in the order of the pool."""
    return [
        IndexUnit(
            artifacts.unit_key(shard.name, "index", store.recordable(shard.url), shard.size, shard.version),
            shard,
        )
        for shard in shards
    ]


class IndexWorker:
    """Indexes one tar per call."""

    def __init__(self, folder: str) -> None:
        """Set the folder that the indexes and receipts are written to."""
        self._folder = folder

    def __call__(self, unit: IndexUnit) -> Receipt:
        """Read the tar and write its index, then its receipt.

        Counters: `samples`, `no-uid` (samples without a uid in the json, and without an image and a
        caption to hash), `fault.<reason>`.

        Raises:
            UserError: the tar no longer exists.
            InfrastructureError: storage failed.
        """
        from d2prune.inputs.tar.index import read_batches

        shard = unit.shard
        counters: Counter[str] = Counter(samples=0)
        tables: list[pa.Table] = []
        try:
            with store.open_read(shard.url) as stream, store.ranged_reader(shard.url) as read:
                batches = read_batches(stream)
                while True:
                    try:
                        tables.append(_tabulate_batch(next(batches), shard.name, read, counters))
                    except StopIteration as stopped:
                        start, rest = stopped.value
                        break
                reader = TarReader(rest, frozenset({JSON_EXTENSION}), start=start)
                tables.append(_tabulate_rest(reader, shard.name, read, counters))
        except FileNotFoundError as error:
            raise UserError(
                f"{store.redact(shard.url)}: no longer exists; it was in the pool when this command started"
            ) from error
        if reader.bytes_read != shard.size:
            raise InfrastructureError(
                f"{store.redact(shard.url)}: read {reader.bytes_read} bytes; "
                f"expected {shard.size}, its size when listed"
            )
        table = pa.concat_tables(tables).combine_chunks()
        return artifacts.commit_unit(self._folder, unit.key, {INDEX: table}, dict(counters))


def _tabulate_batch(batch: "SampleBatch", shard: str, read: Reader, counters: Counter[str]) -> pa.Table:
    """Tabulate samples whose tar headers are ordinary."""
    count = len(batch.offsets)
    counters["samples"] += count
    known = np.ones(count, bool)
    for i, data in batch.jsons.items():
        uid = _read_uid(data) or _hash_uid(read(int(batch.offsets[i]), int(batch.sizes[i])))
        if uid is None:
            counters["no-uid"] += 1
            known[i] = False
        else:
            batch.uids[i] = np.frombuffer(uid.encode(), np.uint8)
    columns = [
        _make_strings(np.arange(0, 32 * count + 1, 32), batch.uids),
        pa.repeat(pa.scalar(shard), count),
        _make_strings(batch.key_bounds, batch.key_bytes),
        pa.array(batch.offsets),
        pa.array(batch.sizes),
    ]
    table = pa.Table.from_arrays(columns, schema=SCHEMA)
    return table if known.all() else table.filter(pa.array(known))


def _make_strings(bounds: NDArray[np.int64], data: NDArray[np.uint8]) -> pa.Array:
    """Build a column whose string i is `data[bounds[i] : bounds[i + 1]]`."""
    buffers = [None, pa.py_buffer(bounds.astype(np.int32)), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.string(), len(bounds) - 1, buffers)


def _tabulate_rest(reader: TarReader, shard: str, read: Reader, counters: Counter[str]) -> pa.Table:
    """Tabulate the samples of the rest of a tar."""
    rows: list[tuple[str, str, str, int, int]] = []
    for item in reader:
        if isinstance(item, Reject):
            counters[f"fault.{item.reason}"] += 1
            continue
        counters["samples"] += 1
        uid = _read_uid(item.members.get(JSON_EXTENSION)) or _hash_uid(read(item.offset, item.size))
        if uid is None:
            counters["no-uid"] += 1
        else:
            rows.append((uid, shard, item.key, item.offset, item.size))
    columns = zip(*rows, strict=True) if rows else ([] for _ in SCHEMA)
    arrays = [pa.array(list(column), field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _read_uid(json_bytes: bytes | None) -> str | None:
    """Read the uid from a json member, None if it has no valid one."""
    if json_bytes is None:
        return None
    uid, notes = sample_uid(json_bytes, b"", b"")
    return None if notes else uid


def _hash_uid(data: bytes) -> str | None:
    """Hash image and caption, as the embed stage does where there is no valid uid.

    Returns None if the image or the caption is missing.
    """
    members = {member.extension: member.payload for member in reversed(parse_sample(data))}
    image = next((members[name] for name in IMAGE_EXTENSIONS if name in members), None)
    caption = members.get(CAPTION_EXTENSION)
    if image is None or caption is None:
        return None
    return sample_uid(None, bytes(image), bytes(caption))[0]
