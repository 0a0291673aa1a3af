"""One output tar: its bytes, its keys, each sample against its source, and what open_clip's data loader makes of it."""

import contextlib
import hashlib
import logging
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from d2prune import store
from d2prune.errors import UserError
from d2prune.inputs.rejects import Reject
from d2prune.inputs.tar.reader import TarReader, TarSample, parse_sample
from d2prune.output import fetch, layout
from d2prune.output.tar_stream import trainable
from d2prune.store.artifacts import FileRecord

_NAMED = 20
"""Samples of one tar that are named before the rest are only counted."""

_BLOCK = 4 * 2**20


@dataclass(frozen=True)
class TarCheck:
    """One output tar to check, with what the manifest tells of it."""

    index: int
    file: FileRecord

    @property
    def key(self) -> str:
        """Names the tar in messages."""
        return self.file.name


class TarChecker:
    """Checks one tar at a time. Memory: the chosen samples of one tar."""

    def __init__(
        self, output: str, sources: Mapping[str, str], samples: int | None, loader: bool, seed: int
    ) -> None:
        """Name what to compare with.

        Args:
            output: URL of the output folder.
            sources: name of each input shard -> its URL.
            samples: samples to compare with their source, None for all.
            loader: whether to run open_clip's data loader.
            seed: of the choice of samples.
        """
        self._output, self._sources = output, sources
        self._samples, self._loader, self._seed = samples, loader, seed

    def __call__(self, check: TarCheck) -> tuple[TarCheck, list[str]]:
        """The tar's faults, each beginning with its name."""
        name = check.file.name
        table_url = store.join(self._output, layout.TABLE_FORMAT.format(check.index))
        try:
            table = pq.read_table(pa.BufferReader(store.read_bytes(table_url)))
        except (pa.ArrowException, OSError, ValueError):
            return check, [f"{name}: cannot be checked without its table"]
        rows = np.arange(table.num_rows)
        if self._samples is not None and self._samples < len(rows):
            generator = np.random.default_rng([self._seed, check.index])
            rows = np.sort(generator.choice(rows, self._samples, replace=False))
        with store.local_copy(store.join(self._output, name)) as path:
            found, wanted = self._read(path, check, table["key"].to_pylist(), set(rows.tolist()))
            # What a wrong checksum is about can be named as long as the samples are those the table tells of.
            if len(wanted) == len(rows):
                found += self._compare(table.take(rows), wanted)
            if self._loader:
                found += _load(path, table.num_rows)
        shown = found[:_NAMED] + ([f"{len(found) - _NAMED} faults more"] if len(found) > _NAMED else [])
        return check, [f"{name}: {fault}" for fault in shown]

    def _read(
        self, path: str, check: TarCheck, keys: Sequence[str], rows: set[int]
    ) -> tuple[list[str], list[TarSample]]:
        """Read the tar once: checksum, keys in order; gives the samples at `rows`."""
        faults: list[str] = []
        wanted: list[TarSample] = []
        digest = hashlib.sha256()
        with open(path, "rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
            if digest.hexdigest() != check.file.checksum:
                faults.append("its checksum is not the manifest's")
            stream.seek(0)
            position = 0
            for item in TarReader(stream):
                if isinstance(item, Reject):
                    faults.append(f"{item.reason}: {item.detail}")
                    continue
                expected = keys[position] if position < len(keys) else "the end"
                if item.key != expected:
                    faults.append(f"sample {position} is {item.key}, its table tells {expected}")
                elif position in rows:
                    wanted.append(item)
                position += 1
        if position != len(keys):
            faults.append(f"{position} samples, its table tells {len(keys)}")
        return faults, wanted

    def _compare(self, table: pa.Table, samples: Sequence[TarSample]) -> list[str]:
        """Each sample's members against its source's, byte for byte."""
        faults: list[str] = []
        records = table.select(["key", "shard", "source_key", "offset", "size"]).to_pylist()
        # Grouped by source: a shuffled tar draws from many shards, and each is opened once.
        order = sorted(range(len(records)), key=lambda i: (records[i]["shard"], records[i]["offset"]))
        try:
            for i, data in zip(
                order, fetch.read_samples(self._wanted([records[i] for i in order])), strict=True
            ):
                record = records[i]
                origin = f"{record['key']} (from {record['shard']}, {record['source_key']})"
                try:
                    members, _ = trainable(parse_sample(data))
                except ValueError as error:
                    faults.append(f"{origin}: its source cannot be parsed: {error}")
                    continue
                source = {extension: bytes(payload) for extension, payload in members}
                faults += [
                    f"{origin}: {extension} is not the source's"
                    for extension in sorted(source.keys() | samples[i].members.keys())
                    if source.get(extension) != samples[i].members.get(extension)
                ]
        except UserError as error:
            faults.append(f"cannot be compared with its source: {error}")
        return faults

    def _wanted(self, records: Sequence[Mapping[str, Any]]) -> Iterator[fetch.Source]:
        start = 0
        for stop in range(1, len(records) + 1):
            if stop == len(records) or records[stop]["shard"] != records[start]["shard"]:
                group = records[start:stop]
                name = group[0]["shard"]
                if name not in self._sources:
                    raise UserError(f"the manifest names no input shard {name}")
                offsets, sizes = [record["offset"] for record in group], [record["size"] for record in group]
                yield fetch.Source(self._sources[name], offsets, sizes)
                start = stop


def _load(path: str, samples: int) -> list[str]:
    """How many samples open_clip's own data loader yields of a tar, and what it says of those it drops."""
    try:
        from d2prune import torchvision_shim

        torchvision_shim.install()
        from open_clip_train.data import get_wds_dataset
    except ImportError as error:
        return [
            f"open_clip's data loader cannot be imported ({error}); pip install 'open_clip_torch[training]'"
        ]
    args = types.SimpleNamespace(
        val_data=path,
        val_num_samples=samples,
        batch_size=min(64, max(samples, 1)),
        workers=0,
        world_size=1,
        seed=0,
    )
    with _warnings() as said:
        data = get_wds_dataset(args, _no_preprocessing, is_train=False, tokenizer=_no_tokenizer)
        count = sum(len(texts) for _, texts in data.dataloader)
    faults = [f"open_clip's data loader: {text}" for text in said]
    if count != samples:
        faults.append(f"open_clip's data loader yields {count} samples of {samples}")
    return faults


def _no_preprocessing(image: Any) -> int:
    return int(image.width)


def _no_tokenizer(text: str) -> list[int]:
    return [len(text)]


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """What the root logger is told meanwhile: open_clip logs the samples it drops there, and goes on."""
    said: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(" ".join(record.getMessage().split()))

    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    keep = Keep(logging.WARNING)
    root.handlers = [keep]
    root.setLevel(logging.WARNING)
    try:
        yield said
    finally:
        root.handlers, root.level = handlers, level
