"""Re-read an output folder and report every fault.

Reads the manifest, then everything it lists (`output/layout.py` has every file, with its checks):
numbering, sizes, checksums, counts, uids against the subset file, each output sample against its
source, every member against what WebDataset can decode, and each tar through open_clip's own data
loader. Executes nothing that a tar holds and writes nothing. Tars and tables are checked
independently, so an executor may run them in parallel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from d2prune import store
from d2prune.errors import UserError
from d2prune.execution import Executor, InProcess, Resources
from d2prune.extras import require
from d2prune.output import layout
from d2prune.output.executable import KEEP_OPTION
from d2prune.output.manifest import CHANGED, OutputManifest, encode_manifest, parse_manifest
from d2prune.verify.contents import Contents
from d2prune.verify.counts import check_claim, check_objects, check_table_counts, check_tar_counts
from d2prune.verify.kept_tables import KeptTableCheck, KeptTableChecker
from d2prune.verify.tars import TarCheck, TarChecker
from d2prune.verify.uids import check_uids

T = TypeVar("T")

SAMPLED_TARS = 4
SAMPLED_SAMPLES = 200


@dataclass(frozen=True)
class Depth:
    """How much of the content is checked.

    Attributes:
        tars: tars (or tables of kept samples) whose content is checked, None for all; the first and
            the last are always among them.
        samples: samples of each of them that are compared with their source, None for all.
        loader: whether to read the tars with open_clip's data loader as well, which decodes every
            image.
        seed: seed of the choice of tars and samples.
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
        full: check the content of every tar; otherwise of a sample of them. Tables are always read.
        depth: what to check, instead of the two choices of `full`.
        executor: runs the checks of tars and tables; default: this process.
        resources: of one worker, and the number of workers.

    Returns:
        The faults, one line each; empty if there are none.

    Raises:
        UserError: the folder does not exist, or its manifest cannot be parsed.
        InfrastructureError: storage failed.
    """
    store.check_folder("output", output)
    depth = depth or (FULL if full else Depth())
    url = store.join(output, layout.MANIFEST)
    try:
        data = store.read_bytes(url)
    except FileNotFoundError:
        if not store.is_folder(output):
            raise UserError(f"output {store.redact(output)}: not found") from None
        return [f"{layout.MANIFEST}: missing; the run that writes this folder is not complete"]
    manifest = parse_manifest(data, store.redact(url))
    if depth.loader and not manifest.is_tables:
        require("open_clip_train", "verify: reading tars with open_clip's data loader")
    faults = [] if data == encode_manifest(manifest) else [f"{layout.MANIFEST}: {CHANGED}"]
    if absent := {"pool", "selected", "shards", "written"} - manifest.counts.keys():
        return [*faults, f"{layout.MANIFEST}: counts: found no {', '.join(sorted(absent))}"]
    objects, missing = check_objects(output, manifest)
    contents = Contents(output, manifest, missing)
    check_counts = check_table_counts if manifest.is_tables else check_tar_counts
    counts = [*check_claim(output, manifest), *check_counts(contents), *check_uids(contents)]
    contents.read_remaining()
    check_contents = _check_kept_tables if manifest.is_tables else _check_tars
    samples = check_contents(
        output, manifest, depth, missing, executor or InProcess(), resources or Resources()
    )
    return [*faults, *objects, *contents.faults, *counts, *samples]


def _check_tars(
    output: str,
    manifest: OutputManifest,
    depth: Depth,
    missing: frozenset[str],
    executor: Executor,
    resources: Resources,
) -> list[str]:
    """Check the content of the chosen tars."""
    checks = _choose_tars(manifest, depth, missing)
    sources = {shard.name: shard.url for shard in manifest.inputs}
    keep_executable = manifest.params.get(KEEP_OPTION) is True
    make = partial(TarChecker, output, sources, depth.samples, depth.loader, depth.seed, keep_executable)
    found = {check.key: faults for check, faults in executor.map(make, checks, resources)}
    return [fault for check in checks for fault in found[check.key]]


def _check_kept_tables(
    output: str,
    manifest: OutputManifest,
    depth: Depth,
    missing: frozenset[str],
    executor: Executor,
    resources: Resources,
) -> list[str]:
    """Check the content of the chosen tables of kept samples."""
    records = [
        file for file in manifest.kept_tables if file.name not in missing and layout.kind_of(file.name)
    ]
    checks = [KeptTableCheck(file) for file in _choose_some(records, depth)]
    sources = {shard.name: shard.url for shard in manifest.inputs}
    make = partial(KeptTableChecker, output, sources, manifest.params.get("uid"), depth.samples, depth.seed)
    found = {check.key: faults for check, faults in executor.map(make, checks, resources)}
    return [fault for check in checks for fault in found[check.key]]


def _choose_tars(
    manifest: OutputManifest, depth: Depth, missing: frozenset[str] = frozenset()
) -> list[TarCheck]:
    """Choose the tars whose content is checked."""
    records = {file.name: file for file in manifest.files if file.name not in missing}
    tars = enumerate(file for file in manifest.tars if file.name in records and layout.kind_of(file.name))
    return _choose_some([TarCheck(index, file) for index, file in tars], depth)


def _choose_some(items: Sequence[T], depth: Depth) -> list[T]:
    """Choose all items, or the first, the last and a random sample of the others."""
    count = len(items)
    if depth.tars is None or depth.tars >= count:
        return list(items)
    between = np.random.default_rng(depth.seed).permutation(np.arange(1, max(count - 1, 1)))
    wanted = sorted({0, count - 1, *between[: max(depth.tars - 2, 0)].tolist()})
    return [items[index] for index in wanted]
