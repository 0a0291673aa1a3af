"""Stand-alone resharding: a subset file and input tars -> an output folder, in the place of DataComp's resharder.

Reads the tars' indexes (made here, kept in `work_dir`), picks the samples the subset file names,
and writes them with the write stage's own writer. The books balance: an output sample for every
entry of the subset file whose uid is in the pool.

A uid that the file names c times and the pool holds k times is written c times: entry i is sample i
mod k in canonical order. So a repeated uid repeats its one sample, as in DataComp's resharder, and
the subset file of one of our runs, which repeats the uid of two kept samples, brings back both.
"""

import dataclasses
import itertools
import logging
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from d2prune import store
from d2prune.errors import UserError
from d2prune.execution import Executor, InProcess, Resources
from d2prune.inputs.shards import TarShard, expand_input
from d2prune.output import claim, layout, manifest, subset
from d2prune.output.shard_writer import commit_shard, put_bytes, write_shard
from d2prune.reshard import shard_index
from d2prune.store import artifacts
from d2prune.store.artifacts import Receipt
from d2prune.write import worker

log = logging.getLogger(__name__)

Positions = npt.NDArray[np.int64]

AT_ONCE = 2
"""Tars that a worker has in hand: one is read while another is hashed, written and closed.

Each has at most 64 MiB of reads from an object store in flight, and 96 MiB of parts on the way to one."""


@dataclass(frozen=True)
class ReshardParams:
    """What decides the output, beside the subset and the pool.

    Attributes:
        samples_per_shard: samples in each output tar but the last.
        shuffle: seed that deals samples to output tars at random (within a tar they stay in
            canonical order, which trainers shuffle anyway); None keeps canonical order throughout.
    """

    samples_per_shard: int = 10_000
    shuffle: int | None = None


@dataclass(frozen=True)
class ReshardUnit:
    """One output tar.

    Attributes:
        key: names its receipt.
        index: its number.
        rows: from `select`, in canonical order. One table: slices would each be pickled with all of it.
        urls: of the input tars it draws from, by `part`.
    """

    key: str
    index: int
    rows: pa.Table
    urls: Mapping[int, str]

    def pieces(self) -> Iterator[tuple[str, pa.Table]]:
        """For each input tar its URL and the rows to copy."""
        parts = self.rows["part"].to_numpy()
        bounds = [0, *(np.flatnonzero(np.diff(parts)) + 1).tolist(), len(parts)]
        for low, high in itertools.pairwise(bounds):
            yield self.urls[int(parts[low])], self.rows.slice(low, high - low)


class ReshardWriter:
    """Writes one output tar per call; several threads may call it."""

    def __init__(self, work_dir: str, output: str) -> None:
        """Name the places, as `stage.Writer`."""
        self._write = store.join(work_dir, "write")
        self._output = output
        self._stopped = threading.Event()

    def __call__(self, unit: ReshardUnit) -> Receipt:
        """Write the unit's objects, then its receipt; raises what `shard_writer.write_shard` does.

        Raises:
            CancelledError: after `stop`.
        """
        return commit_shard(
            self._write, unit.key, write_shard(self._output, unit.index, unit.pieces(), self._go_on)
        )

    def stop(self) -> None:
        """Leave the tars under way at their next block, with nothing under their names."""
        self._stopped.set()

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise CancelledError


def reshard(
    given: str | Sequence[str],
    subset_url: str,
    output: str,
    params: ReshardParams | None = None,
    work_dir: str | None = None,
    executor: Executor | None = None,
    resources: Resources | None = None,
) -> manifest.OutputManifest:
    """Copy the samples a subset file names into an output folder. The same call after a kill goes on where it was.

    The driver holds about 100 bytes per sample written.

    Args:
        given: the input tars: a folder, a glob, braces, or a list of them.
        subset_url: subset file, ours or DataComp's.
        output: URL of the output folder, empty or begun by the same call.
        params: see `ReshardParams`.
        work_dir: where indexes and receipts are kept, reachable by all workers; default a temporary
            local folder, so that a call that was killed starts over.
        executor: spreads the work; default this process.
        resources: of one worker, and how many.

    Returns:
        The manifest of the output; its counts have `missing`, the entries whose uid is not in the pool.

    Raises:
        UserError: no tar, no subset file, or the output folder holds other data.
        BusyError: another process is at work on the output folder.
        BooksError: written is not selected.
    """
    params = params or ReshardParams()
    if params.samples_per_shard < 1:
        raise UserError(f"samples per shard: {params.samples_per_shard}, expected at least 1")
    wanted = subset.read(subset_url)
    shards = expand_input(given)
    pool = [(store.redact(shard.url), shard.size, shard.version) for shard in shards]
    identity = artifacts.fingerprint("reshard", params, store.checksum(wanted.tobytes()), pool)
    run = executor or InProcess()
    resources = dataclasses.replace(resources or Resources(), at_once=AT_ONCE)
    with claim.hold(output, identity) as held, _work_dir(work_dir) as folder:
        indexes = _indexes(folder, shards, run, resources)
        rows = select(wanted, indexes)
        missing = len(wanted) - rows.num_rows
        if missing:
            log.warning(
                "%d of %d entries of %s are not in the pool", missing, len(wanted), store.redact(subset_url)
            )
        units = plan(rows, shards, params, identity)
        receipts = worker.finished(folder, output, units)
        todo = [unit for unit in units if unit.key not in receipts]
        for receipt in run.map(partial(ReshardWriter, folder, output), todo, resources):
            receipts[receipt.key] = receipt
        held.check()
        ids = put_bytes(output, layout.SAMPLE_IDS, subset.to_bytes(wanted), len(wanted))
        return manifest.close(
            output=output,
            work_dir=folder,
            identity=identity,
            params=dataclasses.asdict(params),
            samples_per_shard=params.samples_per_shard,
            pool=sum(index.num_rows for index in indexes),
            selected=rows.num_rows,
            shards=shards,
            tars=[receipts[unit.key] for unit in units],
            others=[ids],
            more_counts={"missing": missing},
        )


@contextmanager
def _work_dir(given: str | None) -> Iterator[str]:
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="d2prune-reshard-") as folder:
        yield folder


def _indexes(
    work_dir: str, shards: Sequence[TarShard], executor: Executor, resources: Resources
) -> list[pa.Table]:
    """The index of each input tar, in order; those made before are read."""
    folder = store.join(work_dir, "index")
    units = shard_index.plan(shards)
    found = {unit.key: artifacts.read_receipt(folder, unit.key) for unit in units}
    receipts = {key: receipt for key, receipt in found.items() if receipt is not None}
    todo = [unit for unit in units if unit.key not in receipts]
    for receipt in executor.map(partial(shard_index.Indexer, folder), todo, resources):
        receipts[receipt.key] = receipt
    faults = {
        k: v for k, v in artifacts.sum_counters(list(receipts.values())).items() if k != "samples" and v
    }
    if faults:
        log.warning("input: %s", ", ".join(f"{name} {count}" for name, count in faults.items()))
    return [artifacts.read_table(folder, receipts[unit.key], shard_index.INDEX) for unit in units]


def select(wanted: subset.UidArray, indexes: Sequence[pa.Table]) -> pa.Table:
    """The rows to write, in canonical order.

    Args:
        wanted: `subset.DTYPE` [S], sorted, repeats allowed.
        indexes: per input tar a table of `shard_index.SCHEMA`.

    Returns:
        Columns of `shard_index.SCHEMA` and `part` (int32, which tar); a sample named several times
        is there as often, side by side.
    """
    parts, entries = [], []
    for part, index in enumerate(indexes):
        rows, entry = lookup(wanted, subset.encode(index["uid"].to_pylist()))
        parts.append(
            index.take(rows).append_column("part", pa.array(np.full(len(rows), part, dtype=np.int32)))
        )
        entries.append(entry)
    schema = shard_index.SCHEMA.append(pa.field("part", pa.int32()))
    found = pa.concat_tables([schema.empty_table(), *parts])
    first = np.concatenate([np.zeros(0, np.int64), *entries])
    return found.take(np.repeat(np.arange(found.num_rows), copies(first, wanted)))


def lookup(wanted: subset.UidArray, uids: subset.UidArray) -> tuple[Positions, Positions]:
    """Which of `uids` are in `wanted`.

    Args:
        wanted: `subset.DTYPE` [S], sorted.
        uids: `subset.DTYPE` [N], in any order.

    Returns:
        Rows of `uids` that are there, ascending [M], and for each its first entry of `wanted` [M].
    """
    high, low = wanted["f0"], wanted["f1"]
    entry = np.searchsorted(high, uids["f0"], "left")
    rows = np.arange(len(uids))
    # Uids are hashes, so equal first halves are repeats of one uid, all but never two uids: this
    # ends at once.
    while True:
        inside = entry < len(wanted)
        rows, entry = rows[inside], entry[inside]
        here = high[entry] == uids["f0"][rows]
        rows, entry = rows[here], entry[here]
        behind = low[entry] < uids["f1"][rows]
        if not behind.any():
            break
        entry = entry + behind
    same = low[entry] == uids["f1"][rows]
    return rows[same].astype(np.int64), entry[same].astype(np.int64)


def copies(first: Positions, wanted: subset.UidArray) -> Positions:
    """How often each matching sample is written; see the module's text for the rule.

    Args:
        first: for each sample, in canonical order, its uid's first entry in `wanted` [M].
        wanted: `subset.DTYPE` [S], sorted.

    Returns:
        int64 [M]; sums to the entries of `wanted` that have a sample.
    """
    changed = np.ones(len(wanted), dtype=bool)
    changed[1:] = wanted[1:] != wanted[:-1]
    starts = np.flatnonzero(changed)
    entries = np.diff(np.append(starts, len(wanted)))[np.searchsorted(starts, first)]
    order = np.argsort(first, kind="stable")
    _, group_start, group_size = np.unique(first[order], return_index=True, return_counts=True)
    rank, holders = np.empty_like(first), np.empty_like(first)
    rank[order] = np.arange(len(first)) - np.repeat(group_start, group_size)
    holders[order] = np.repeat(group_size, group_size)
    return np.asarray(entries // holders + (rank < entries % holders), dtype=np.int64)


def plan(rows: pa.Table, shards: Sequence[TarShard], params: ReshardParams, identity: str) -> list[ReshardUnit]:
    """Deal the rows to output tars.

    Args:
        rows: from `select`.
        shards: the input tars.
        params: see `ReshardParams`.
        identity: of the whole output; with its number it is that of a tar.
    """
    count, size = rows.num_rows, params.samples_per_shard
    dealt = np.arange(count)
    if params.shuffle is not None:
        dealt = np.random.default_rng(params.shuffle).permutation(count)
    units = []
    for index, start in enumerate(range(0, count, size)):
        chosen = rows.take(np.sort(dealt[start : start + size])).combine_chunks()
        urls = {part: shards[part].url for part in chosen["part"].unique().to_pylist()}
        units.append(
            ReshardUnit(artifacts.unit_key(f"{index:08d}", "reshard", identity), index, chosen, urls)
        )
    return units
