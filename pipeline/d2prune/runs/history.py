"""The finished runs of a work_dir.

    work_dir/runs/<name>.json     one finished output: its URL, counts and artifacts
    <output root>/latest.json     for an output of `<root>/{run_id}`: the newest complete run

Both are written after the output's manifest, each by one atomic put. They hold no times: the date
of a run is the time at which its object was written.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from d2prune import store
from d2prune.errors import UserError
from d2prune.output.manifest import read_manifest

RUN_ID = "{run_id}"
LATEST = "latest.json"
FOLDER = "runs"


@dataclass(frozen=True)
class RunEntry:
    """A finished output.

    Attributes:
        run_id: derived from the fingerprint of everything that decides the output, so the same pool
            and parameters have the same id.
        output: URL of the output folder.
        scheduled: whether the folder was named by `{run_id}`; pruning may delete it.
        artifacts: stage -> fingerprint of the artifacts the output was made from.
        report: URL of the report.
        samples: number of samples in the pool.
        kept: number of samples in the output.
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
        """Parent folder of the output."""
        return self.output.rstrip("/").rpartition("/")[0]


def make_run_id(identity: str) -> str:
    """The id of the run whose output has the fingerprint `identity`."""
    return identity[:16]


def fill_run_id(output: str, identity: str) -> str:
    """Replace `{run_id}` in an output URL, if it is there."""
    return output.replace(RUN_ID, make_run_id(identity))


def publish(
    work_dir: str, output: str, identity: str, fingerprints: Mapping[str, str], report: str
) -> RunEntry:
    """Add a finished output to the list of runs; a scheduled one becomes its root's latest run.

    Args:
        work_dir: URL.
        output: URL of the output folder, without placeholders.
        identity: fingerprint of everything that decides the output.
        fingerprints: stage -> fingerprint of the artifacts the output was made from.
        report: URL of the report, which need not exist yet.

    Raises:
        UserError: the output's manifest does not exist.
    """
    manifest = read_manifest(output)
    if manifest is None:
        raise UserError(f"output {store.redact(output)}: its manifest is missing; expected a complete output")
    run_id = make_run_id(identity)
    url = store.redact(output).rstrip("/")
    entry = RunEntry(
        run_id=run_id,
        output=url,
        scheduled=url.endswith(f"/{run_id}"),
        artifacts=dict(fingerprints),
        report=store.redact(report),
        samples=manifest.counts["pool"],
        kept=manifest.counts["written"],
        size=sum(file.size for file in manifest.files),
    )
    _write_if_changed(entry_url(work_dir, entry), dataclasses.asdict(entry))
    if entry.scheduled:
        latest = {name: getattr(entry, name) for name in ("run_id", "output", "samples", "kept", "report")}
        _write_if_changed(store.join(entry.root, LATEST), latest | {"work_dir": store.redact(work_dir)})
    return entry


def read_runs(work_dir: str) -> list[tuple[float, RunEntry]]:
    """The finished runs, newest first, with their dates (seconds since 1970, by the store)."""
    files = store.list_files(store.join(work_dir, FOLDER, "*.json"))
    found = [(store.modified(file.url), RunEntry(**json.loads(store.read_bytes(file.url)))) for file in files]
    return sorted(found, key=lambda pair: (-pair[0], pair[1].run_id))


def find_latest(entries: Sequence[RunEntry]) -> list[RunEntry]:
    """The runs that the `latest.json` of an output root names."""
    found = []
    for root in {entry.root for entry in entries if entry.scheduled}:
        try:
            run_id = json.loads(store.read_bytes(store.join(root, LATEST)))["run_id"]
        except FileNotFoundError:
            continue
        found += [
            entry for entry in entries if entry.scheduled and (entry.root, entry.run_id) == (root, run_id)
        ]
    return found


def find_work_dir(location: str) -> str:
    """The work_dir at `location`, which may also be an output root: then that of its latest run.

    Raises:
        UserError: it is neither.
    """
    location = location.removesuffix("/").removesuffix(f"/{RUN_ID}")
    try:
        return str(json.loads(store.read_bytes(store.join(location, LATEST)))["work_dir"])
    except FileNotFoundError:
        if store.list_files(store.join(location, FOLDER, "*.json")):
            return location
    raise UserError(
        f"{store.redact(location)}: no finished run found; expected a work_dir with a folder {FOLDER}/, or "
        f"an output folder with {LATEST}"
    )


def entry_url(work_dir: str, entry: RunEntry) -> str:
    """URL of a run's entry; outputs of one id in different folders have different entries."""
    suffix = hashlib.blake2b(entry.output.encode(), digest_size=4).hexdigest()
    return store.join(work_dir, FOLDER, f"{entry.run_id}-{suffix}.json")


def _write_if_changed(url: str, value: Mapping[str, object]) -> None:
    """Write JSON unless the object holds it already: the object's time is the date of the run."""
    data = json.dumps(value, sort_keys=True, indent=1).encode() + b"\n"
    try:
        if store.read_bytes(url) == data:
            return
    except FileNotFoundError:
        pass
    store.write_bytes(url, data)
