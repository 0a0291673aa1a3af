"""The finished runs of a work_dir: which there are, which is the latest, what only old ones need.

    work_dir/runs/<name>.json     one finished output: its URL, counts, and the artifacts it is made from
    <output root>/latest.json     where the output is `<root>/{run_id}`: the newest whole run

Both are written after the output's manifest, each by one atomic put, and hold no times: the date of
a run is when its object was written. Invariant of pruning: what a kept run, the latest of any root,
or an artifact that no listed run names needs is not touched. A manifest is first set aside as
`pruned.json` and goes last, so that an interrupted pruning leaves no artifact that looks whole and
is not, and can go on.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from d2prune import store
from d2prune.errors import UserError
from d2prune.runs import stages
from d2prune.store import artifacts, lease

log = logging.getLogger(__name__)

RUN_ID = "{run_id}"
LATEST = "latest.json"
PRUNED = "pruned.json"
FOLDER = "runs"
STAGES = ("embed", "graph", "rank", "select", "write")


@dataclass(frozen=True)
class RunEntry:
    """A finished output.

    Attributes:
        run_id: from the fingerprint of all that decides the output: the same pool and parameters,
            the same id.
        output: URL of its folder.
        scheduled: the folder was named by `{run_id}`, so pruning may delete it.
        artifacts: stage -> fingerprint.
        report: URL of its page.
        samples: size of the pool.
        kept: samples in the output.
        size: bytes of the output.
    """

    run_id: str
    output: str
    scheduled: bool
    artifacts: Mapping[str, str]
    report: str
    samples: int
    kept: int
    size: int

    @property
    def root(self) -> str:
        """The folder that holds its folder."""
        return self.output.rstrip("/").rpartition("/")[0]


@dataclass(frozen=True)
class Pruning:
    """What goes: runs, manifests of artifacts (stage's folder, fingerprint), folders with all below them."""

    entries: tuple[RunEntry, ...]
    manifests: tuple[tuple[str, str], ...]
    folders: tuple[str, ...]


def output_of(output: str, identity: str) -> str:
    """The output folder of the run `identity`: its `{run_id}` filled in, where there is one."""
    return output.replace(RUN_ID, run_id(identity))


def run_id(identity: str) -> str:
    """The run's id: the same for the same pool and parameters, so that nothing new is found out before any work."""
    return identity[:16]


def publish(
    work_dir: str, output: str, identity: str, fingerprints: Mapping[str, str], report: str
) -> RunEntry:
    """Enter a finished output into the list; a scheduled one becomes its root's latest.

    Args:
        work_dir: URL.
        output: URL of the output folder, without placeholders.
        identity: fingerprint of everything that decides the output.
        fingerprints: of the artifacts it is made from, by stage.
        report: URL of its page, whether that exists yet or not.
    """
    from d2prune.output.manifest import read_manifest

    manifest = read_manifest(output)
    if manifest is None:
        raise UserError(f"output {store.redact(output)}: its manifest is gone")
    name = run_id(identity)
    entry = RunEntry(
        run_id=name,
        output=store.redact(output).rstrip("/"),
        scheduled=store.redact(output).rstrip("/").endswith(f"/{name}"),
        artifacts=dict(fingerprints),
        report=store.redact(report),
        samples=manifest.counts["pool"],
        kept=manifest.counts["written"],
        size=sum(file.size for file in manifest.files),
    )
    _put_if_new(_entry_url(work_dir, entry), dataclasses.asdict(entry))
    if entry.scheduled:
        latest = {name: getattr(entry, name) for name in ("run_id", "output", "samples", "kept", "report")}
        _put_if_new(store.join(entry.root, LATEST), latest | {"work_dir": store.redact(work_dir)})
    return entry


def read_runs(work_dir: str) -> list[tuple[float, RunEntry]]:
    """The finished runs with their dates (seconds since 1970, by the store), newest first."""
    files = store.list_files(store.join(work_dir, FOLDER, "*.json"))
    found = [(store.modified(file.url), RunEntry(**json.loads(store.read_bytes(file.url)))) for file in files]
    return sorted(found, key=lambda pair: (-pair[0], pair[1].run_id))


def work_dir_of(place: str) -> str:
    """The work_dir that the user means: itself, or that of the latest run in an output root.

    Raises:
        UserError: it is neither.
    """
    place = place.removesuffix("/").removesuffix(f"/{RUN_ID}")
    try:
        return str(json.loads(store.read_bytes(store.join(place, LATEST)))["work_dir"])
    except FileNotFoundError:
        if store.list_files(store.join(place, FOLDER, "*.json")):
            return place
    shown = store.redact(place)
    raise UserError(
        f"{shown}: expected a work_dir with a finished run ({FOLDER}/), or a folder that holds {LATEST}"
    )


def print_runs(work_dir: str) -> None:
    """One line per run on standard output, newest first."""
    found = read_runs(work_dir)
    latest = _latest([entry for _, entry in found])
    print(f"{'run':<16}  {'date (UTC)':<16}  {'samples':>14}  {'kept':>14}  {'size':>9}          output")
    for date, entry in found:
        stamp = time.strftime("%Y-%m-%d %H:%M", time.gmtime(date))
        mark = "latest" if entry in latest else ""
        size = f"{entry.size / 1e9:.2f} GB"
        print(
            f"{entry.run_id}  {stamp}  {entry.samples:>14,}  {entry.kept:>14,}  {size:>9}  {mark:<6}  {entry.output}"
        )


def prune(work_dir: str, keep: int, yes: bool) -> Pruning:
    """Delete what only old runs need, or say what that would be.

    Args:
        work_dir: URL.
        keep: newest runs to keep, at least 1; the latest of each output root stays too.
        yes: delete.

    Raises:
        UserError: `keep` is below 1.
        BusyError: a run is at work.
    """
    if keep < 1:
        raise UserError(f"--keep {keep}: expected at least 1")
    if not yes:
        found = plan_prune(work_dir, keep)
        _print_pruning(
            work_dir, found, "would be deleted; --yes deletes them" if found.entries else "to delete"
        )
        return found
    with lease.hold(work_dir) as held:
        found = plan_prune(work_dir, keep)
        for folder, identity in found.manifests:
            _set_aside(folder, identity)
        store.delete(
            [store.join(entry.output, artifacts.MANIFEST) for entry in found.entries if entry.scheduled]
        )
        held.check()
        with ThreadPoolExecutor(16) as pool:
            for _ in pool.map(_delete_folder, found.folders):
                held.check()
        # The list of units among what is left there, last: an interrupted pruning can go on.
        for folder, identity in found.manifests:
            left = [file.url for file in store.list_files(store.join(folder, identity))]
            store.delete(sorted(left, key=lambda url: url.endswith(PRUNED)))
        store.delete([_entry_url(work_dir, entry) for entry in found.entries])
    _print_pruning(work_dir, found, "deleted")
    return found


def plan_prune(work_dir: str, keep: int) -> Pruning:
    """What only the runs beyond the newest `keep` need; touches nothing."""
    entries = [entry for _, entry in read_runs(work_dir)]
    latest = _latest(entries)
    kept = [entry for index, entry in enumerate(entries) if index < keep or entry in latest]
    dropped = [entry for entry in entries if entry not in kept]
    manifests: list[tuple[str, str]] = []
    folders: list[str] = []
    for entry in dropped:
        if entry.scheduled:
            folders.append(entry.output)
        if entry.report not in {other.report for other in kept}:
            folders.append(entry.report.rpartition("/")[0])
    for stage in STAGES:
        folder = store.join(work_dir, stage)
        wanted = {entry.artifacts[stage] for entry in kept}
        gone = {entry.artifacts[stage] for entry in dropped} - wanted
        manifests += [(folder, identity) for identity in sorted(gone)]
        folders += [artifacts.unit_url(folder, key, "") for key in _units_only_of(folder, gone)]
    return Pruning(tuple(dropped), tuple(manifests), tuple(dict.fromkeys(folders)))


def _units_only_of(folder: str, gone: Collection[str]) -> list[str]:
    """Keys of the units of these artifacts that no other artifact of the stage names."""
    mine: set[str] = set()
    others: set[str] = set()
    for name in (artifacts.MANIFEST, PRUNED):
        for file in store.list_files(store.join(folder, "*", name)):
            identity = file.url.split("/")[-2]
            keys = _unit_keys(json.loads(store.read_bytes(file.url)))
            (mine if identity in gone or name == PRUNED else others).update(keys)
    return sorted(mine - others)


def _set_aside(folder: str, identity: str) -> None:
    """From now on the artifact does not exist; its list of units is still needed."""
    url = artifacts.manifest_url(folder, identity)
    with contextlib.suppress(FileNotFoundError):
        store.write_bytes(store.join(folder, identity, PRUNED), store.read_bytes(url))
    store.delete([url])


def _unit_keys(manifest: Mapping[str, Any]) -> Iterable[str]:
    yield from (unit["key"] for unit in manifest["units"])
    for stage in stages.STAGES:
        if stage.name == manifest["stage"]:
            yield from stage.other_unit_keys(manifest)


def _delete_folder(folder: str) -> None:
    """The receipt first: a unit without one is not finished, whatever else is left of it."""
    store.delete([store.join(folder, artifacts.RECEIPT)])
    store.delete([file.url for file in store.list_files(folder)])


def _latest(entries: Sequence[RunEntry]) -> list[RunEntry]:
    """The runs that some root's `latest.json` names."""
    found = []
    for root in {entry.root for entry in entries if entry.scheduled}:
        try:
            identity = json.loads(store.read_bytes(store.join(root, LATEST)))["run_id"]
        except FileNotFoundError:
            continue
        found += [
            entry for entry in entries if entry.scheduled and (entry.root, entry.run_id) == (root, identity)
        ]
    return found


def _print_pruning(work_dir: str, found: Pruning, what: str) -> None:
    for entry in found.entries:
        output = entry.output if entry.scheduled else f"artifacts only; {entry.output} is yours to delete"
        print(f"{entry.run_id}  {entry.kept:,} samples  {output}")
    print(f"{store.redact(work_dir)}: {len(found.entries)} runs and {len(found.folders)} folders {what}")


def _entry_url(work_dir: str, entry: RunEntry) -> str:
    place = hashlib.blake2b(entry.output.encode(), digest_size=4).hexdigest()
    return store.join(work_dir, FOLDER, f"{entry.run_id}-{place}.json")


def _put_if_new(url: str, value: Mapping[str, object]) -> None:
    """Not written again with the same bytes: the object's time is the date of the run."""
    data = json.dumps(value, sort_keys=True, indent=1).encode() + b"\n"
    try:
        if store.read_bytes(url) == data:
            return
    except FileNotFoundError:
        pass
    store.write_bytes(url, data)
