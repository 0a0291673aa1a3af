"""The finished runs of a work_dir.

    work_dir/runs/<name>.json     one finished output: its URL, counts and artifacts
    <output root>/latest.json     for an output of `<root>/{run_id}`: the newest complete run

Both are written after the output's manifest, each by one atomic put. They hold no times: the date
of a run is the time at which its object was written.
"""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence

from d2prune import store
from d2prune.errors import UserError
from d2prune.output.manifest import read_manifest
from d2prune.runs import sharing
from d2prune.runs.entries import FOLDER, RunEntry, entry_url, read_entry
from d2prune.runs.lineage import choose_continued, find_entry, read_manifests
from d2prune.stage.earlier import EarlierRun, make_run_id
from d2prune.store import schemas
from d2prune.store.artifacts import Manifest

log = logging.getLogger(__name__)

RUN_ID = "{run_id}"
LATEST = "latest.json"


def fill_run_id(output: str, identity: str) -> str:
    """Replace `{run_id}` in an output URL, if it is there."""
    return output.replace(RUN_ID, make_run_id(identity))


def announce(work_dir: str, output: str, identity: str) -> None:
    """Record that a run of this work_dir is about to write a scheduled output.

    Args:
        work_dir: URL.
        output: URL of the output folder, without placeholders.
        identity: fingerprint of everything that decides the output.
    """
    root, _, name = output.rstrip("/").rpartition("/")
    if name == make_run_id(identity):
        sharing.record_use(root, name, work_dir)
        # What killed runs left of `latest.json` and of these records.
        for folder in (root, store.join(root, sharing.FOLDER)):
            store.sweep_temporaries(folder, recursive=False)


def publish(
    work_dir: str, output: str, identity: str, manifests: Mapping[str, Manifest], report: str
) -> RunEntry:
    """Add a finished output to the list of runs; a scheduled one becomes its root's latest run.

    Args:
        work_dir: URL.
        output: URL of the output folder, without placeholders.
        identity: fingerprint of everything that decides the output.
        manifests: stage -> the artifacts the output was made from.
        report: URL of the report, which need not exist yet.

    Raises:
        UserError: the output's manifest does not exist.
    """
    manifest = read_manifest(output)
    if manifest is None:
        raise UserError(f"output {store.redact(output)}: its manifest is missing; expected a complete output")
    run_id = make_run_id(identity)
    url = store.recordable(output).rstrip("/")
    location = entry_url(work_dir, run_id, url)
    entry = RunEntry(
        run_id=run_id,
        output=url,
        scheduled=url.endswith(f"/{run_id}"),
        artifacts={stage: artifact.fingerprint for stage, artifact in manifests.items()},
        report=store.recordable(report),
        samples=manifest.counts["pool"],
        kept=manifest.counts["written"],
        size=sum(file.size for file in manifest.files),
        continues=_find_continued(work_dir, location, run_id, url, manifests),
    )
    value = dataclasses.asdict(entry)
    if not entry.continues:
        # Older entries lack it, and keep their date.
        del value["continues"]
    _write_if_changed(location, value)
    if entry.scheduled:
        latest: dict[str, object] = {
            name: getattr(entry, name) for name in ("run_id", "output", "samples", "kept", "report")
        }
        latest["work_dir"] = store.recordable(work_dir)
        if manifest.is_stable:
            latest["shards"] = [f"{schemas.SHARED_FOLDER}/{file.name}" for file in manifest.tars]
        _write_if_changed(store.join(entry.root, LATEST), latest)
    return entry


def _find_continued(
    work_dir: str, location: str, run_id: str, output: str, manifests: Mapping[str, Manifest]
) -> str:
    """The id of the run that a run continues: the one recorded if the run is published again."""
    try:
        if store.exists(location):
            return read_entry(location).continues
        entries = [entry for _, entry in read_runs(work_dir)]
    except UserError as error:
        log.warning("%s; the report names no run that this one continues", error)
        return ""
    return choose_continued(work_dir, entries, run_id, output, manifests)


def find_earlier(work_dir: str, entry: RunEntry) -> EarlierRun | None:
    """Find the run that a finished run continues; None if it continues none."""
    if not entry.continues:
        return None
    try:
        found = find_entry([other for _, other in read_runs(work_dir)], entry.continues, entry.root)
    except UserError as error:
        log.warning("%s; what changed since run %s is not shown", error, entry.continues)
        found = None
    if found is None:
        # What the pruned run handed on is also with this run's own page, if it was made before.
        return EarlierRun(entry.continues, entry.report)
    return EarlierRun(found.run_id, found.report, read_manifests(work_dir, found))


def read_runs(work_dir: str) -> list[tuple[float, RunEntry]]:
    """The finished runs, newest first, with their dates (seconds since 1970, by the store).

    Raises:
        UserError: a file of the list is not one that d2prune wrote.
    """
    files = store.list_files(store.join(work_dir, FOLDER), "*.json")
    found = [(store.modified(file.url), read_entry(file.url)) for file in files]
    return sorted(found, key=lambda pair: (-pair[0], pair[1].run_id))


def find_latest(entries: Sequence[RunEntry]) -> list[RunEntry]:
    """The runs that the `latest.json` of an output root names.

    Raises:
        UserError: a `latest.json` is not one that d2prune wrote.
    """
    found = []
    for root in {entry.root for entry in entries if entry.scheduled}:
        latest = read_latest(root)
        if latest is not None:
            run = (root, latest["run_id"])
            found += [entry for entry in entries if entry.scheduled and (entry.root, entry.run_id) == run]
    return found


def read_latest(root: str) -> Mapping[str, str] | None:
    """`run_id`, `output` and `work_dir` of an output root's latest run; None if it has none.

    Raises:
        UserError: `latest.json` is not one that d2prune wrote.
    """
    url = store.join(root, LATEST)
    try:
        value = json.loads(store.read_bytes(url))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{store.redact(url)}: cannot be read: {error}; the next run replaces it") from error
    names = ("run_id", "output", "work_dir")
    if not isinstance(value, dict) or not all(isinstance(value.get(name), str) for name in names):
        raise UserError(
            f"{store.redact(url)}: not the record of a latest run: expected the keys {', '.join(names)}"
        )
    return {name: value[name] for name in names}


def find_work_dir(location: str) -> str:
    """The work_dir at `location`, which may also be an output root: then that of its latest run.

    Raises:
        UserError: it is neither, or `latest.json` names a work_dir that does not list its run.
    """
    location = location.removesuffix("/").removesuffix(f"/{RUN_ID}")
    store.check_folder("work_dir", location)
    latest = read_latest(location)
    if latest is not None:
        _check_listed(location, latest)
        return latest["work_dir"]
    if store.list_files(store.join(location, FOLDER), "*.json"):
        return location
    raise UserError(
        f"{store.redact(location)}: no finished run found; expected a work_dir with a folder {FOLDER}/, or "
        f"an output folder with {LATEST}"
    )


def _check_listed(root: str, latest: Mapping[str, str]) -> None:
    """Check that the latest run is one of this root and of the work_dir it names: pruning starts there."""
    folder = latest["output"].rstrip("/").rpartition("/")[0]
    url = entry_url(latest["work_dir"], latest["run_id"], latest["output"])
    if store.resolve(folder) != store.resolve(root) or not store.exists(url):
        raise UserError(
            f"{store.redact(store.join(root, LATEST))}: names run {latest['run_id']} of work_dir "
            f"{store.redact(latest['work_dir'])}, which does not list a run with that output here; "
            "name the work_dir itself"
        )


def _write_if_changed(url: str, value: Mapping[str, object]) -> None:
    """Write JSON unless the object holds it already: the object's time is the date of the run."""
    data = store.encode_record(value, sort_keys=True, indent=1) + b"\n"
    try:
        if store.read_bytes(url) == data:
            return
    except FileNotFoundError:
        pass
    store.write_bytes(url, data)
