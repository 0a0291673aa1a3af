"""An input tar -> its index: uid, key and byte range of every sample. All that resharding by uid needs to know of it.

Of a local tar only headers and json members are looked at; of a remote one the stream is read once. The index does not
depend on the subset, so it serves every subset of the same pool.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline import artifacts, storage
from pipeline.artifacts import Receipt
from pipeline.embed.decode import CAPTION_EXTENSION, IMAGE_EXTENSIONS, JSON_EXTENSION, sample_uid
from pipeline.errors import InfrastructureError, UserError
from pipeline.inputs.pool import Shard
from pipeline.inputs.tar import Fault, Sample, TarReader, parse_sample

INDEX = "index.parquet"

SCHEMA = pa.schema(
    [("uid", pa.string()), ("shard", pa.string()), ("key", pa.string()), ("offset", pa.int64()), ("size", pa.int64())]
)
"""One row per sample, in tar order; `offset` and `size` as in the embed stage's part."""


@dataclass(frozen=True)
class IndexUnit:
    """One input tar to index."""

    key: str
    shard: Shard


def plan(shards: Sequence[Shard]) -> list[IndexUnit]:
    """One unit per tar, in the pool's order."""
    return [
        IndexUnit(artifacts.unit_key(shard.name, "index", shard.url, shard.size, shard.version), shard)
        for shard in shards
    ]


class Indexer:
    """Indexes one tar per call."""

    def __init__(self, folder: str) -> None:
        """Name the place: `folder` gets the units."""
        self._folder = folder

    def __call__(self, unit: IndexUnit) -> Receipt:
        """Read the tar and commit its index.

        Counters: `samples`, `no-uid` (no uid in a json, and no image and caption to hash), `fault.<reason>`.

        Raises:
            UserError: the tar is gone.
            InfrastructureError: storage failed.
        """
        shard = unit.shard
        counters: Counter[str] = Counter(samples=0)
        rows: list[tuple[str, str, str, int, int]] = []
        try:
            with storage.mapped_or_stream(shard.url) as content, storage.ranged_reader(shard.url) as read:
                reader = TarReader(content, frozenset({JSON_EXTENSION}))
                for item in reader:
                    if isinstance(item, Fault):
                        counters[f"fault.{item.reason}"] += 1
                        continue
                    counters["samples"] += 1
                    uid = _uid(item) or _hashed(read(item.offset, item.size))
                    if uid is None:
                        counters["no-uid"] += 1
                    else:
                        rows.append((uid, shard.name, item.key, item.offset, item.size))
        except FileNotFoundError as error:
            raise UserError(f"{storage.redact(shard.url)}: was in the pool and is gone") from error
        if reader.bytes_read != shard.size:
            raise InfrastructureError(
                f"{storage.redact(shard.url)}: {reader.bytes_read} bytes came, {shard.size} were listed"
            )
        columns = zip(*rows, strict=True) if rows else ([] for _ in SCHEMA)
        arrays = [pa.array(list(column), field.type) for column, field in zip(columns, SCHEMA, strict=True)]
        table = pa.Table.from_arrays(arrays, schema=SCHEMA)
        return artifacts.commit_unit(self._folder, unit.key, {INDEX: table}, dict(counters))


def _uid(sample: Sample) -> str | None:
    """The uid its json tells, None where there is none."""
    if JSON_EXTENSION not in sample.members:
        return None
    uid, notes = sample_uid(sample.members[JSON_EXTENSION], b"", b"")
    return None if notes else uid


def _hashed(data: bytes) -> str | None:
    """The embed stage's hash of image and caption, for a sample without a valid uid; None where one is missing."""
    members = {member.extension: member.payload for member in reversed(parse_sample(data))}
    image = next((members[name] for name in IMAGE_EXTENSIONS if name in members), None)
    caption = members.get(CAPTION_EXTENSION)
    if image is None or caption is None:
        return None
    return sample_uid(None, bytes(image), bytes(caption))[0]
