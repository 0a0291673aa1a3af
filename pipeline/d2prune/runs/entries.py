"""The record of a finished run: `work_dir/runs/<run id>-<hash of the output's URL>.json`.

Pruning deletes what these records name, so a file that d2prune did not write is refused.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from d2prune import store
from d2prune.errors import UserError
from d2prune.stage.earlier import make_run_id

FOLDER = "runs"

RUN_ID = re.compile(r"[0-9a-f]{16}")
"""What the id of a run looks like."""
_FINGERPRINT = re.compile(r"[0-9a-f]{32}")
_STAGE = re.compile(r"[a-z]+")
_REPORT = re.compile(r"(?:.*/)?report/([0-9a-f]{32})/report\.html", re.DOTALL)


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
        continues: id of the run whose pool this one's grew from (`runs/lineage.py`); empty: none.
    """

    run_id: str
    output: str
    scheduled: bool
    artifacts: Mapping[str, str]
    report: str
    samples: int
    kept: int
    size: int
    continues: str = ""

    @property
    def root(self) -> str:
        """Parent folder of the output."""
        return self.output.rstrip("/").rpartition("/")[0]

    @property
    def identity(self) -> str:
        """Fingerprint of everything that decides the output; `run_id` is its beginning."""
        return next(value for value in self.artifacts.values() if make_run_id(value) == self.run_id)

    @property
    def report_id(self) -> str:
        """Name of the report's folder in `work_dir/report`."""
        match = _REPORT.fullmatch(self.report)
        assert match is not None  # `parse_entry` has checked it.
        return match.group(1)


def entry_url(work_dir: str, run_id: str, output: str) -> str:
    """URL of a run's entry; outputs of one id in different folders have different entries."""
    suffix = hashlib.blake2b(output.encode(), digest_size=4).hexdigest()
    return store.join(work_dir, FOLDER, f"{run_id}-{suffix}.json")


def read_entry(url: str) -> RunEntry:
    """Read the entry of a run.

    Raises:
        UserError: the file is not one that d2prune wrote.
    """
    data = store.read_bytes(url)
    try:
        return _parse_entry(url, json.loads(data))
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{store.redact(url)}: not the entry of a finished run: {error}; move the file elsewhere"
        ) from error


def _parse_entry(url: str, value: object) -> RunEntry:
    names = {field.name for field in dataclasses.fields(RunEntry)}
    # Entries from before runs continued one another lack it.
    if not isinstance(value, dict) or (value := {"continues": ""} | value).keys() != names:
        raise ValueError(f"expected an object with the keys {', '.join(sorted(names))}")
    kinds = {"scheduled": bool, "artifacts": dict, "samples": int, "kept": int, "size": int}
    for name, item in value.items():
        kind = kinds.get(name, str)
        if type(item) is not kind:
            raise ValueError(f"{name}: found {type(item).__name__}; expected {kind.__name__}")
    entry = RunEntry(**value)
    if not RUN_ID.fullmatch(entry.run_id):
        raise ValueError("run_id: expected 16 hexadecimal digits")
    if entry.continues and not RUN_ID.fullmatch(entry.continues):
        raise ValueError("continues: expected the id of a run")
    for stage, fingerprint in entry.artifacts.items():
        if not (
            _STAGE.fullmatch(stage) and isinstance(fingerprint, str) and _FINGERPRINT.fullmatch(fingerprint)
        ):
            raise ValueError(
                f"artifacts: {stage!r}: expected a stage and a fingerprint of 32 hexadecimal digits"
            )
    if entry.run_id not in map(make_run_id, entry.artifacts.values()):
        raise ValueError("run_id: expected the beginning of the fingerprint of an artifact")
    if entry.scheduled and not entry.output.endswith(f"/{entry.run_id}"):
        raise ValueError("output: expected a folder named by run_id")
    if not _REPORT.fullmatch(entry.report):
        raise ValueError("report: expected .../report/FINGERPRINT/report.html")
    expected = entry_url("", entry.run_id, entry.output).rsplit("/", 1)[-1]
    if url.rsplit("/", 1)[-1] != expected:
        raise ValueError(f"expected it in a file named {expected}")
    return entry
