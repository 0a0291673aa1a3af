"""Re-read an output folder and name every fault: the books against the objects, the samples against their sources.

Reads the manifest, then everything it tells of: numbering, sizes, checksums, counts, uids against
the subset file, each output sample against the bytes of its input tar, and each tar through
open_clip's own data loader. Nothing is written. Tars are checked independently, so an executor may
spread them.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from d2prune import store
from d2prune.errors import UserError
from d2prune.execution import Executor, InProcess, Resources
from d2prune.output import layout, subset
from d2prune.output.manifest import OutputManifest, read_manifest
from d2prune.store.artifacts import FileRecord
from d2prune.verify.tables import TableCheck, TableChecker
from d2prune.verify.tars import TarCheck, TarChecker

T = TypeVar("T")

SAMPLED_TARS = 4
SAMPLED_SAMPLES = 200


@dataclass(frozen=True)
class Depth:
    """How much is re-read.

    Attributes:
        tars: tars (or tables of kept samples) whose content is checked, None for all; first and
            last are always among them.
        samples: samples of each of them that are compared with their source, None for all.
        loader: whether the tars go through open_clip's data loader too, which decodes every image.
        seed: of the choice of tars and samples.
    """

    tars: int | None = SAMPLED_TARS
    samples: int | None = SAMPLED_SAMPLES
    loader: bool = True
    seed: int = 0


FULL = Depth(tars=None, samples=None)


def verify(
    output: str,
    full: bool = False,
    depth: Depth | None = None,
    executor: Executor | None = None,
    resources: Resources | None = None,
) -> list[str]:
    """Check an output folder.

    Args:
        output: URL of the folder.
        full: check all of it; otherwise every table, and a sample of the tars.
        depth: what to check instead of the two choices `full` gives.
        executor: spreads the tars; default this process.
        resources: of one worker, and how many.

    Returns:
        The faults, one line each; empty where all is well.

    Raises:
        UserError: the folder is not there, or its manifest cannot be read.
        InfrastructureError: the storage cannot be reached.
    """
    depth = depth or (FULL if full else Depth())
    manifest = read_manifest(output)
    if manifest is None:
        if not store.is_folder(output):
            raise UserError(f"output {store.redact(output)}: not found")
        return [f"{layout.MANIFEST}: missing; the run that writes this folder has not finished"]
    faults, absent = _objects(output, manifest)
    tables = _Tables(output, manifest, absent)
    numbers = _table_numbers if manifest.is_tables else _numbers
    faults += numbers(output, manifest, absent)
    faults += tables.read()
    if manifest.is_tables:
        return faults + _sources(
            output, manifest, depth, absent, executor or InProcess(), resources or Resources()
        )
    checks = _chosen(manifest, depth, absent)
    run = executor or InProcess()
    checker = _MakeChecker(output, manifest, depth)
    by_tar = {check.index: found for check, found in run.map(checker, checks, resources or Resources())}
    for check in checks:
        faults += by_tar[check.index]
    return faults


def _sources(
    output: str,
    manifest: OutputManifest,
    depth: Depth,
    absent: frozenset[str],
    executor: Executor,
    resources: Resources,
) -> list[str]:
    """Each kept sample against its row of the input."""
    records = [file for file in _kept(manifest) if file.name not in absent]
    checks = [TableCheck(file) for file in _some(records, depth)]
    sources = {shard.name: shard.url for shard in manifest.inputs}
    make = partial(TableChecker, output, sources, manifest.params["uid"], depth.samples, depth.seed)
    found = {check.key: faults for check, faults in executor.map(make, checks, resources)}
    return [fault for check in checks for fault in found[check.key]]


@dataclass(frozen=True)
class _MakeChecker:
    """Builds the worker where it runs."""

    output: str
    manifest: OutputManifest
    depth: Depth

    def __call__(self) -> TarChecker:
        urls = {shard.name: shard.url for shard in self.manifest.inputs}
        return TarChecker(self.output, urls, self.depth.samples, self.depth.loader, self.depth.seed)


def _kept(manifest: OutputManifest) -> list[FileRecord]:
    return [file for file in manifest.files if file.name.startswith(layout.KEPT_PREFIX)]


def _objects(output: str, manifest: OutputManifest) -> tuple[list[str], frozenset[str]]:
    """Names and sizes: all that is told of is there, and nothing else is. Also tells what is not there."""
    found = store.list_files(output)
    sizes = {file.url.rsplit("/", 1)[-1]: file.size for file in found}
    faults = []
    for file in manifest.files:
        if file.name not in sizes:
            faults.append(f"{file.name}: missing")
        elif sizes[file.name] != file.size:
            faults.append(f"{file.name}: {sizes[file.name]} bytes, the manifest tells {file.size}")
    known = {file.name for file in manifest.files} | {layout.MANIFEST, layout.CLAIM}
    faults += [f"{name}: not in the manifest" for name in sorted(sizes.keys() - known)]
    if len(found) != len(sizes):
        faults.append(f"{len(found) - len(sizes)} files lie in folders below; the folder must be flat")
    return faults, frozenset(file.name for file in manifest.files if file.name not in sizes)


def _numbers(output: str, manifest: OutputManifest, absent: frozenset[str]) -> list[str]:
    """Numbering without gaps, and counts that agree wherever they are told."""
    faults = []
    expected = [layout.SHARD_FORMAT.format(i) for i in range(manifest.counts["shards"])]
    rows = [manifest.rows(layout.TABLE_FORMAT.format(i)) or 0 for i in range(len(expected))]
    tars = [file.name for file in manifest.files if file.name.endswith(".tar")]
    if tars != expected:
        odd = sorted(set(tars) ^ set(expected))
        faults.append(
            f"numbering: expected {len(expected)} tars from 0 without gaps; wrong: {', '.join(odd[:5])}"
        )
    told: list[tuple[str, Any, Any]] = [
        ("sum of the tables' rows", sum(rows), manifest.counts["written"]),
        ("selected", manifest.counts["selected"], manifest.counts["written"]),
    ]
    if layout.META not in absent:
        meta = _json(output, layout.META)
        told.append((f"{layout.META}: output_shard_count", meta.get("output_shard_count"), len(rows)))
        told.append(
            (f"{layout.META}: output_shard_format", meta.get("output_shard_format"), layout.SHARD_FORMAT)
        )
    if layout.SIZES not in absent:
        told.append((layout.SIZES, _json(output, layout.SIZES), dict(zip(expected, rows, strict=True))))
    for index, number in enumerate(rows):
        name = layout.STATS_FORMAT.format(index)
        if name not in absent:
            told.append((f"{name}: successes", _json(output, name).get("successes"), number))
    return faults + _unlike(told)


def _table_numbers(output: str, manifest: OutputManifest, absent: frozenset[str]) -> list[str]:
    """Counts that agree wherever they are told, of an output without tars."""
    counts = manifest.counts
    told: list[tuple[str, Any, Any]] = [
        ("sum of the tables' rows", sum(file.rows or 0 for file in _kept(manifest)), counts["written"]),
        ("selected", counts["selected"], counts["written"]),
    ]
    if layout.META not in absent:
        meta = _json(output, layout.META)
        told.append((f"{layout.META}: output_count", meta.get("output_count"), counts["written"]))
        told.append((f"{layout.META}: output_shard_count", meta.get("output_shard_count"), 0))
    return _unlike(told)


def _unlike(told: Sequence[tuple[str, Any, Any]]) -> list[str]:
    return [f"{what}: {found}, expected {right}" for what, found, right in told if found != right]


def _json(output: str, name: str) -> dict[str, Any]:
    """A small object of the output; empty where it is no JSON object, or the manifest does not know it."""
    try:
        value = json.loads(store.read_bytes(store.join(output, name)))
    except (ValueError, FileNotFoundError):
        return {}
    return value if isinstance(value, dict) else {}


class _Tables:
    """The tables of an output: rows by the manifest, uids by the files themselves."""

    def __init__(self, output: str, manifest: OutputManifest, absent: frozenset[str]) -> None:
        self._output, self._manifest, self._absent = output, manifest, absent
        names = [layout.TABLE_FORMAT.format(i) for i in range(manifest.counts["shards"])]
        self._written = _kept(manifest) or [
            file for name in names for file in manifest.files if file.name == name
        ]
        self._decisions = [file for file in manifest.files if file.name.startswith("decisions-")]

    def read(self) -> list[str]:
        """Checksums of the tables and of the subset file, and that all tell of the same samples."""
        faults: list[str] = []
        rows = self._uids(self._written, faults, kept_only=False)
        listed = self._listed(faults)
        kept = self._uids(self._decisions, faults, kept_only=True) if self._decisions else None
        # Of tables that are not all there, nothing is told but that: the lists cannot agree.
        if rows is not None and listed is not None and not np.array_equal(rows, listed):
            faults.append(f"{layout.SUBSET}: {_difference(listed, rows)}")
        if rows is not None and kept is not None and not np.array_equal(kept, rows):
            faults.append(f"decisions: {_difference(kept, rows)}")
        if rows is None and listed is not None and kept is not None and not np.array_equal(kept, listed):
            faults.append(f"decisions: {_difference(kept, listed)}")
        told = sum(file.rows or 0 for file in self._decisions)
        if self._decisions and told != self._manifest.counts["pool"]:
            faults.append(f"decisions: {told} rows, the pool has {self._manifest.counts['pool']}")
        return faults

    def _listed(self, faults: list[str]) -> subset.UidArray | None:
        """The subset file's uids, None where they cannot be had."""
        record = next((file for file in self._manifest.files if file.name == layout.SUBSET), None)
        if record is None:
            faults.append(f"{layout.SUBSET}: not in the manifest")
        if record is None or record.name in self._absent:
            return None
        url = store.join(self._output, layout.SUBSET)
        if store.checksum(store.read_bytes(url)) != record.checksum:
            faults.append(f"{layout.SUBSET}: its checksum is not the manifest's")
        try:
            return subset.read(url)
        except UserError as error:
            faults.append(str(error))
            return None

    def _uids(
        self, files: Sequence[FileRecord], faults: list[str], kept_only: bool
    ) -> subset.UidArray | None:
        """The uids of tables, sorted, None where not all can be had."""
        found = [self._read(file, faults, kept_only) for file in files if file.name not in self._absent]
        whole = [uids for uids in found if uids is not None]
        if len(whole) != len(files):
            return None
        rows = np.concatenate([np.zeros(0, subset.DTYPE), *whole])
        return rows[subset.order(rows)]

    def _read(self, file: FileRecord, faults: list[str], kept_only: bool) -> subset.UidArray | None:
        data = store.read_bytes(store.join(self._output, file.name))
        if store.checksum(data) != file.checksum:
            faults.append(f"{file.name}: its checksum is not the manifest's")
        try:
            table = pq.read_table(pa.BufferReader(data), columns=["uid", "kept"])
            if table.num_rows != file.rows:
                faults.append(f"{file.name}: {table.num_rows} rows, the manifest tells {file.rows}")
            uids = table.filter(table["kept"])["uid"] if kept_only else table["uid"]
            return subset.encode(uids.to_pylist())
        except (pa.ArrowException, OSError, ValueError) as error:
            faults.append(f"{file.name}: cannot be read: {' '.join(str(error).split())}")
            return None


def _difference(found: subset.UidArray, written: subset.UidArray) -> str:
    """Two multisets of uids in a few words."""
    ours, theirs = set(subset.decode(found)), set(subset.decode(written))
    examples = sorted(ours ^ theirs)[:3]
    return (
        f"{len(found)} uids, {len(written)} samples were written; "
        f"{len(ours - theirs)} uids were not written, {len(theirs - ours)} written ones are not listed"
        + (f", e.g. {', '.join(examples)}" if examples else "")
    )


def _chosen(manifest: OutputManifest, depth: Depth, absent: frozenset[str] = frozenset()) -> list[TarCheck]:
    """The tars to check."""
    records = {file.name: file for file in manifest.files if file.name not in absent}
    names = [(index, layout.SHARD_FORMAT.format(index)) for index in range(manifest.counts["shards"])]
    return _some([TarCheck(index, records[name]) for index, name in names if name in records], depth)


def _some(of: Sequence[T], depth: Depth) -> list[T]:
    """All, or first, last and some between."""
    count = len(of)
    if depth.tars is None or depth.tars >= count:
        return list(of)
    between = np.random.default_rng(depth.seed).permutation(np.arange(1, max(count - 1, 1)))
    wanted = sorted({0, count - 1, *between[: max(depth.tars - 2, 0)].tolist()})
    return [of[index] for index in wanted]
