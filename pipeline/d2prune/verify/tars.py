"""Check one output tar: checksum, keys, members, each sample against its source, open_clip's loader."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from d2prune import store
from d2prune.errors import UserError
from d2prune.inputs.rejects import Reject
from d2prune.inputs.tar.checksum import combine_digests, hash_members
from d2prune.inputs.tar.reader import TarReader, TarSample, parse_sample
from d2prune.output import layout
from d2prune.output.byte_ranges import ByteRanges, read_samples
from d2prune.output.tar_stream import make_decodable, restore_names
from d2prune.store import schemas
from d2prune.store.artifacts import FileRecord
from d2prune.verify.faults import label_faults
from d2prune.verify.loader import check_with_open_clip
from d2prune.verify.members import find_member_faults

_READ_BYTES = 4 * 2**20
"""Bytes read at a time to compute the checksum."""


@dataclass(frozen=True)
class TarCheck:
    """An output tar to check, as the manifest records it."""

    index: int
    file: FileRecord

    @property
    def key(self) -> str:
        """Name of the tar, for messages."""
        return self.file.name


class TarChecker:
    """Checks one tar per call. Memory: the chosen samples of one tar."""

    def __init__(
        self,
        output: str,
        sources: Mapping[str, str],
        samples: int | None,
        loader: bool,
        seed: int,
        keep_executable: bool = False,
    ) -> None:
        """Set what to check, and what to compare with.

        Args:
            output: URL of the output folder.
            sources: name of each input shard -> its URL.
            samples: samples to compare with their source, None for all.
            loader: whether to run open_clip's data loader.
            seed: seed of the choice of samples.
            keep_executable: whether the output was written with executable members unchanged.
        """
        self._output, self._sources = output, sources
        self._samples, self._loader, self._seed = samples, loader, seed
        self._keep_executable = keep_executable

    def __call__(self, check: TarCheck) -> tuple[TarCheck, list[str]]:
        """Return the faults of the tar."""
        name = check.file.name
        table_url = layout.locate(self._output, layout.table_of(name))
        is_shared = layout.is_shared(name)
        schema = schemas.SHARED if is_shared else schemas.WRITTEN
        try:
            table = pq.read_table(pa.BufferReader(store.read_bytes(table_url)))
            table = table.select(schema.names).cast(schema)
        except (pa.ArrowException, OSError, ValueError, KeyError):
            return check, [f"{name}: cannot be checked without its table"]
        rows = np.arange(table.num_rows)
        if self._samples is not None and self._samples < len(rows):
            generator = np.random.default_rng([self._seed, check.index])
            rows = np.sort(generator.choice(rows, self._samples, replace=False))
        with store.local_copy(layout.locate(self._output, name)) as path:
            keys = table["key"].to_pylist()
            faults, samples = _read_tar(path, check, keys, set(rows.tolist()), self._keep_executable)
            # Even a tar with a wrong checksum can be compared, if its keys are those of its table.
            if len(samples) == len(rows) and is_shared:
                faults += _compare_with_embedded(table.take(rows), samples)
            elif len(samples) == len(rows):
                faults += self._compare_with_sources(table.take(rows), samples)
            if self._loader:
                faults += check_with_open_clip(path, table.num_rows)
        return check, label_faults(name, faults)

    def _compare_with_sources(self, table: pa.Table, samples: Sequence[TarSample]) -> list[str]:
        """Compare each sample with its source, byte for byte, and the source with what was embedded."""
        faults: list[str] = []
        records = table.select(["key", "shard", "source_key", "offset", "size", "checksum"]).to_pylist()
        # Sorted by source, since a shuffled tar has samples of many input shards: each is opened once.
        order = sorted(range(len(records)), key=lambda i: (records[i]["shard"], records[i]["offset"]))
        try:
            ranges = self._list_ranges([records[i] for i in order])
            for i, data in zip(order, read_samples(ranges), strict=True):
                record = records[i]
                origin = f"{record['key']} (from {record['shard']}, {record['source_key']})"
                try:
                    raw = parse_sample(data)
                except ValueError as error:
                    faults.append(f"{origin}: the source cannot be parsed: {error}")
                    continue
                members, _ = make_decodable(raw, self._keep_executable)
                source = {extension: bytes(payload) for extension, payload in members}
                different = [
                    f"{origin}: {extension} differs from the source"
                    for extension in sorted(source.keys() | samples[i].members.keys())
                    if source.get(extension) != samples[i].members.get(extension)
                ]
                faults += different
                # A reshard embeds nothing, so its tables have no checksums.
                if not different and record["checksum"] not in (None, hash_members(raw)):
                    faults.append(f"{origin}: equals its source, but other bytes were embedded")
        except UserError as error:
            faults.append(f"cannot be compared with its source: {error}")
        return faults

    def _list_ranges(self, records: Sequence[Mapping[str, Any]]) -> Iterator[ByteRanges]:
        """Yield the byte ranges to read from each input shard, given records sorted by shard and offset."""
        start = 0
        for stop in range(1, len(records) + 1):
            if stop == len(records) or records[stop]["shard"] != records[start]["shard"]:
                group = records[start:stop]
                name = group[0]["shard"]
                if name not in self._sources:
                    raise UserError(f"input shard {name} is not in the manifest")
                offsets, sizes = [record["offset"] for record in group], [record["size"] for record in group]
                yield ByteRanges(self._sources[name], offsets, sizes)
                start = stop


def _compare_with_embedded(table: pa.Table, samples: Sequence[TarSample]) -> list[str]:
    """Compare each sample with the checksum of what was embedded.

    Another run may have written a shared tar, from an input that no longer exists.
    """
    faults = []
    for key, checksum, sample in zip(
        table["key"].to_pylist(), table["checksum"].to_pylist(), samples, strict=True
    ):
        written = list(enumerate(sample.extensions))
        sources = (written, restore_names(sample.extensions))
        if checksum not in (combine_digests({name: sample.digests[i] for i, name in s}) for s in sources):
            faults.append(f"{key}: differs from what was embedded")
    return faults


def _read_tar(
    path: str, check: TarCheck, keys: Sequence[str], rows: set[int], keep_executable: bool
) -> tuple[list[str], list[TarSample]]:
    """Read the tar, compare its checksum and its keys, and check its members.

    Args:
        path: the tar on this machine.
        check: what the manifest records.
        keys: the keys its table lists.
        rows: samples to return, counted from 0.
        keep_executable: see `TarChecker`.

    Returns:
        The faults, and the samples at `rows` whose key is the expected one.
    """
    faults: list[str] = []
    samples: list[TarSample] = []
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(_READ_BYTES):
            digest.update(block)
        if digest.hexdigest() != check.file.checksum:
            faults.append("checksum differs from the manifest")
        stream.seek(0)
        position = 0
        for item in TarReader(stream, with_digests=layout.is_shared(check.file.name)):
            if isinstance(item, Reject):
                faults.append(f"{item.reason}: {item.detail}")
                continue
            faults += find_member_faults(item, keep_executable)
            expected = keys[position] if position < len(keys) else "the end of the tar"
            if item.key != expected:
                faults.append(f"sample {position}: found key {item.key}; expected {expected}")
            elif position in rows:
                samples.append(item)
            position += 1
    if position != len(keys):
        faults.append(f"found {position} samples; expected {len(keys)}, the rows of its table")
    return faults, samples
