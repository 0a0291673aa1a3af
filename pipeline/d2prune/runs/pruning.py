"""Delete what only old runs of a work_dir need.

Invariant: nothing is touched that a kept run, the latest run of any output root, another work_dir
that shares an output root, or an artifact that no listed run names still needs; nor any file that
d2prune did not write (`runs/owned_files.py`).

Manifests are renamed to `pruned.json` first and deleted last. An interrupted pruning therefore
leaves no incomplete artifact that looks complete, and resumes from the files that the renamed
manifests list.
"""

import contextlib
import dataclasses
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from d2prune import store
from d2prune.errors import BusyError, UserError
from d2prune.output import claim
from d2prune.runs import sharing
from d2prune.runs.artifact_kinds import INDEX, ArtifactKind
from d2prune.runs.entries import RunEntry, entry_url
from d2prune.runs.history import find_latest, read_latest, read_runs
from d2prune.runs.owned_files import (
    PRUNED,
    OwnedFolder,
    divide,
    find_output_files,
    find_unit_files,
    is_plain_name,
    parse_unit_files,
    read_output_manifest,
)
from d2prune.runs.shared_tars import SharedTars
from d2prune.runs.stages import STAGES
from d2prune.store import artifacts, lease

_FINGERPRINT = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Pruning:
    """What can be deleted, and what stays.

    Attributes:
        entries: runs.
        folders: units, output folders and reports, with the files to delete.
        manifests: folders of artifacts, with the files to delete.
        remarks: one line for each folder of these runs of which something stays.
    """

    entries: tuple[RunEntry, ...]
    folders: tuple[OwnedFolder, ...]
    manifests: tuple[OwnedFolder, ...]
    remarks: tuple[str, ...]


def plan_pruning(work_dir: str, keep: int) -> Pruning:
    """Find what only runs older than the newest `keep` need. Deletes nothing.

    Args:
        work_dir: URL.
        keep: number of newest runs to keep; the latest run of each output root is kept as well.

    Raises:
        UserError: `keep` is below 1, or a record of the runs or artifacts is not d2prune's.
    """
    if keep < 1:
        raise UserError(f"--keep {keep}: expected at least 1")
    entries = [entry for _, entry in read_runs(work_dir)]
    latest = find_latest(entries)
    kept = [entry for index, entry in enumerate(entries) if index < keep or entry in latest]
    dropped = [entry for entry in entries if entry not in kept]
    folders = [*_find_outputs(work_dir, dropped, kept), *_find_reports(work_dir, dropped, kept)]
    manifests: list[OwnedFolder] = []
    kinds = [ArtifactKind.of_stage(stage) for stage in STAGES if stage.has_manifest]
    for kind in (*kinds, INDEX) if dropped else ():
        unneeded = kind.find_identities(dropped) - kind.find_identities(kept)
        units, records = _find_artifacts(work_dir, kind, unneeded)
        folders += units
        manifests += records
    found = [folder for folder in folders if isinstance(folder, OwnedFolder)]
    remarks = [folder for folder in folders if isinstance(folder, str)]
    remarks += [line for folder in (*found, *manifests) for line in folder.describe_foreign()]
    present = [folder for folder in found if folder.names]
    return Pruning(tuple(dropped), tuple(present), tuple(manifests), tuple(remarks))


def prune(work_dir: str, keep: int) -> Pruning:
    """Delete what only runs older than the newest `keep` need.

    Args:
        work_dir: URL.
        keep: as for `plan_pruning`.

    Raises:
        UserError: as for `plan_pruning`; nothing is deleted then.
        BusyError: a run is in progress in this work_dir.
    """
    with lease.hold(work_dir) as held:
        found = plan_pruning(work_dir, keep)
        outputs = {entry.output: entry for entry in found.entries if entry.scheduled}
        folders = [folder for folder in found.folders if folder.url not in outputs]
        for folder in (*found.manifests, *folders):
            _set_record_aside(folder)
        held.check()
        remarks = list(found.remarks)
        deleted = list(folders)
        shared = SharedTars()
        for folder in found.folders:
            if folder.url in outputs:
                reason = _delete_output(work_dir, outputs[folder.url], shared)
                if reason is None:
                    deleted.append(folder)
                else:
                    remarks.append(_describe_kept(folder.url, reason))
                held.check()
        with ThreadPoolExecutor(16) as threads:
            for _ in threads.map(_delete_folder, folders):
                held.check()
        for folder in found.manifests:
            _delete_folder(folder)
        for entry in outputs.values():
            sharing.remove_use(entry.root, entry.run_id, work_dir)
        store.delete([entry_url(work_dir, entry.run_id, entry.output) for entry in found.entries])
    return dataclasses.replace(found, folders=tuple(deleted), remarks=tuple(remarks))


def _delete_output(work_dir: str, entry: RunEntry, shared: SharedTars) -> str | None:
    """Delete the files of a scheduled output, or return the reason why they stay.

    The shared tars that no other output lists are deleted, too. While this process holds their folder no
    run completes an output that may list them.

    Another work_dir may have started the same run since the plan was made. Such a run records that
    it uses the output before it looks for the output's manifest. Here the manifest is set aside
    before looking for such records. So at least one of the two sees the other: this pruning, which
    then keeps the output, or the run, which then waits for the output's lease and writes it again.
    """
    try:
        with (
            lease.hold(entry.output, label="output", keep_record=False) as held,
            contextlib.ExitStack() as stack,
        ):
            folder = find_output_files(entry)
            if isinstance(folder, str):
                return folder
            manifest, tars = read_output_manifest(entry), list[str]()
            if manifest is not None and manifest.is_stable:
                stack.enter_context(claim.hold_shared(entry.output))
                try:
                    tars = shared.find_unlisted(entry.output, manifest)
                except UserError as error:
                    return str(error)
            is_complete = _set_record_aside(folder)
            users = _find_other_users(work_dir, entry)
            if users:
                if is_complete:
                    _restore_record(folder)
                return f"{users[0]} uses it, too"
            held.check()
            store.delete(tars)
            _delete_folder(folder)
    except BusyError as error:
        return str(error)
    return None


def _describe_kept(output: str, reason: str) -> str:
    return f"{store.redact(output)}: left alone: {reason}"


def _find_outputs(
    work_dir: str, dropped: Sequence[RunEntry], kept: Sequence[RunEntry]
) -> list[OwnedFolder | str]:
    """The files of scheduled outputs; one line for an output that is left alone."""
    needed = {store.resolve(entry.output) for entry in kept}
    found: list[OwnedFolder | str] = []
    for entry in dropped:
        if entry.scheduled:
            users = ["a kept run"] if store.resolve(entry.output) in needed else []
            users += _find_other_users(work_dir, entry)
            files = f"{users[0]} uses it, too" if users else find_output_files(entry)
            found.append(_describe_kept(entry.output, files) if isinstance(files, str) else files)
    return found


def _find_other_users(work_dir: str, entry: RunEntry) -> list[str]:
    users = sharing.find_other_users(entry.root, entry.run_id, work_dir)
    latest = read_latest(entry.root)
    if latest is not None and latest["run_id"] == entry.run_id:
        if store.resolve(latest["work_dir"]) != store.resolve(work_dir):
            users.append(f"work_dir {store.redact(latest['work_dir'])}")
    return users


def _find_reports(work_dir: str, dropped: Sequence[RunEntry], kept: Sequence[RunEntry]) -> list[OwnedFolder]:
    names = {entry.report_id for entry in dropped} - {entry.report_id for entry in kept}
    urls = [store.join(work_dir, "report", name) for name in sorted(names)]
    own = {"report.html", *(file for stage in STAGES if stage.location for file in stage.other_files)}
    return [divide(url, store.list_entries(url), own) for url in urls]


def _find_artifacts(
    work_dir: str, kind: ArtifactKind, unneeded: Collection[str]
) -> tuple[list[OwnedFolder | str], list[OwnedFolder]]:
    """The units that only the unneeded artifacts of a kind use, and the folders of these artifacts."""
    folder = store.join(work_dir, kind.name)
    pruned: dict[str, list[str] | None] = {}
    kept: set[str] = set()
    half_pruned = set()
    for name in (artifacts.MANIFEST, PRUNED):
        for file in store.list_files(folder, f"*/{name}"):
            fingerprint = file.url.split("/")[-2]
            if _FINGERPRINT.fullmatch(fingerprint):
                units = _read_units(file.url, kind)
                if name == PRUNED:
                    half_pruned.add(fingerprint)
                if name == PRUNED or fingerprint in unneeded:
                    pruned |= units
                else:
                    kept |= units.keys()
                    half_pruned.discard(fingerprint)
    own = {artifacts.MANIFEST, *kind.other_files}
    records = []
    for fingerprint in sorted(half_pruned | set(unneeded)):
        url = store.join(folder, fingerprint)
        found = store.list_entries(url)
        if found:
            records.append(divide(url, found, own, last=(PRUNED,), record=artifacts.MANIFEST))
    return _find_units(folder, {key: pruned[key] for key in pruned.keys() - kept}), records


def _read_units(url: str, kind: ArtifactKind) -> dict[str, list[str] | None]:
    """Unit key -> names of its files, of the units of an artifact; None where only the receipt lists them."""
    try:
        manifest = artifacts.read_json(url)
        units: dict[str, list[str] | None] = {key: None for key in kind.other_unit_keys(manifest)}
        units |= {unit["key"]: parse_unit_files(unit) for unit in manifest["units"]}
        if not all(map(is_plain_name, units)):
            raise ValueError("expected keys of units")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{store.redact(url)}: not a manifest of stage {kind.name}, so the units that it needs are "
            f"unknown ({type(error).__name__}: {error}); nothing was deleted. Move it elsewhere; the "
            "next run that needs it rebuilds it"
        ) from error
    return units


def _find_units(folder: str, units: Mapping[str, list[str] | None]) -> list[OwnedFolder | str]:
    if not units:
        return []
    entries = defaultdict(list)
    for name in store.list_entries(store.join(folder, "units")):
        key, _, file = name.partition("/")
        if key in units and file:
            entries[key].append(file)
    found: list[OwnedFolder | str] = []
    for key in sorted(entries):
        url = store.join(folder, "units", key)
        files = find_unit_files(url, entries[key], units[key])
        found.append(f"{store.redact(url)}: left alone: {files}" if isinstance(files, str) else files)
    return found


def _set_record_aside(folder: OwnedFolder) -> bool:
    """Rename the record of a folder: what it lists is no longer complete, but the list is still needed.

    Returns:
        Whether there was one.
    """
    if folder.record is None:
        return False
    url = store.join(folder.url, folder.record)
    try:
        data = store.read_bytes(url)
    except FileNotFoundError:
        return False
    store.write_bytes(store.join(folder.url, PRUNED), data)
    store.delete([url])
    return True


def _restore_record(folder: OwnedFolder) -> None:
    """Undo `_set_record_aside`."""
    if folder.record is not None:
        aside = store.join(folder.url, PRUNED)
        store.write_bytes(store.join(folder.url, folder.record), store.read_bytes(aside))
        store.delete([aside])


def _delete_folder(folder: OwnedFolder) -> None:
    """Delete the files of a folder that d2prune wrote, the record that lists them last."""
    names = [*folder.names, PRUNED] if folder.record is not None else folder.names
    store.delete([store.join(folder.url, name) for name in dict.fromkeys(names)])
