"""Delete what only old runs of a work_dir need.

Invariant: nothing is touched that a kept run, the latest run of any output root, or an artifact
that no listed run names still needs.

Manifests are renamed to `pruned.json` first and deleted last. An interrupted pruning therefore
leaves no incomplete artifact that looks complete, and resumes from the units that the renamed
manifests list.
"""

import contextlib
import json
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from d2prune import store
from d2prune.errors import UserError
from d2prune.runs.history import RunEntry, entry_url, find_latest, read_runs
from d2prune.runs.stages import STAGES
from d2prune.store import artifacts, lease

PRUNED = "pruned.json"


@dataclass(frozen=True)
class Pruning:
    """What can be deleted.

    Attributes:
        entries: runs.
        manifests: (folder of the stage, fingerprint) of artifacts.
        folders: URLs of units, output folders and reports, each deleted with everything below it.
    """

    entries: tuple[RunEntry, ...]
    manifests: tuple[tuple[str, str], ...]
    folders: tuple[str, ...]


def plan_pruning(work_dir: str, keep: int) -> Pruning:
    """Find what only runs older than the newest `keep` need. Deletes nothing.

    Args:
        work_dir: URL.
        keep: number of newest runs to keep; the latest run of each output root is kept as well.

    Raises:
        UserError: `keep` is below 1.
    """
    if keep < 1:
        raise UserError(f"--keep {keep}: expected at least 1")
    entries = [entry for _, entry in read_runs(work_dir)]
    latest = find_latest(entries)
    kept = [entry for index, entry in enumerate(entries) if index < keep or entry in latest]
    dropped = [entry for entry in entries if entry not in kept]
    manifests: list[tuple[str, str]] = []
    folders: list[str] = []
    for entry in dropped:
        if entry.scheduled:
            folders.append(entry.output)
        if entry.report not in {other.report for other in kept}:
            folders.append(entry.report.rpartition("/")[0])
    for stage in dict.fromkeys(stage for entry in dropped for stage in entry.artifacts):
        folder = store.join(work_dir, stage)
        needed = {entry.artifacts.get(stage) for entry in kept}
        unneeded = {entry.artifacts[stage] for entry in dropped if stage in entry.artifacts} - needed
        manifests += [(folder, fingerprint) for fingerprint in sorted(unneeded)]
        folders += [artifacts.unit_url(folder, key, "") for key in _find_unshared_units(folder, unneeded)]
    return Pruning(tuple(dropped), tuple(manifests), tuple(dict.fromkeys(folders)))


def prune(work_dir: str, keep: int) -> Pruning:
    """Delete what only runs older than the newest `keep` need.

    Args:
        work_dir: URL.
        keep: as for `plan_pruning`.

    Raises:
        UserError: `keep` is below 1.
        BusyError: a run is in progress in this work_dir.
    """
    with lease.hold(work_dir) as held:
        found = plan_pruning(work_dir, keep)
        for folder, fingerprint in found.manifests:
            _mark_pruned(folder, fingerprint)
        outputs = [entry.output for entry in found.entries if entry.scheduled]
        store.delete([store.join(output, artifacts.MANIFEST) for output in outputs])
        held.check()
        with ThreadPoolExecutor(16) as threads:
            for _ in threads.map(_delete_folder, found.folders):
                held.check()
        for folder, fingerprint in found.manifests:
            urls = [file.url for file in store.list_files(store.join(folder, fingerprint))]
            store.delete(sorted(urls, key=lambda url: url.endswith(PRUNED)))
        store.delete([entry_url(work_dir, entry) for entry in found.entries])
    return found


def _find_unshared_units(folder: str, fingerprints: Collection[str]) -> list[str]:
    """Keys of the units of these artifacts that no other artifact of the stage shares."""
    pruned: set[str] = set()
    kept: set[str] = set()
    for name in (artifacts.MANIFEST, PRUNED):
        for file in store.list_files(store.join(folder, "*", name)):
            fingerprint = file.url.split("/")[-2]
            keys = _unit_keys(json.loads(store.read_bytes(file.url)))
            (pruned if fingerprint in fingerprints or name == PRUNED else kept).update(keys)
    return sorted(pruned - kept)


def _mark_pruned(folder: str, fingerprint: str) -> None:
    """Rename a manifest: the artifact no longer exists, but its list of units is still needed."""
    url = artifacts.manifest_url(folder, fingerprint)
    with contextlib.suppress(FileNotFoundError):
        store.write_bytes(store.join(folder, fingerprint, PRUNED), store.read_bytes(url))
    store.delete([url])


def _unit_keys(manifest: Mapping[str, Any]) -> Iterable[str]:
    yield from (unit["key"] for unit in manifest["units"])
    for stage in STAGES:
        if stage.name == manifest["stage"]:
            yield from stage.other_unit_keys(manifest)


def _delete_folder(folder: str) -> None:
    """Delete a folder, the receipt first: a unit without a receipt counts as incomplete."""
    store.delete([store.join(folder, artifacts.RECEIPT)])
    store.delete([file.url for file in store.list_files(folder)])
