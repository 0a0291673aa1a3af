"""The finished selections of a work_dir, and the names that a user may call them by.

A selection is called by the id of a run that it belongs to, as `d2prune runs` prints it, or by its
own fingerprint; the beginning of either suffices.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from d2prune import store
from d2prune.errors import UserError
from d2prune.runs import history
from d2prune.store import artifacts

log = logging.getLogger(__name__)

_SHORT = 8


@dataclass(frozen=True)
class Selection:
    """A finished selection.

    Attributes:
        fingerprint: of the select artifact.
        name: short: the beginning of its newest run's id, or of its fingerprint if no run wrote it;
            unique in the work_dir.
        run_ids: of the runs that wrote it, newest first.
        finished: seconds since 1970, when its newest run, or else the selection, was complete.
        output: of its newest run; empty if no run wrote it.
    """

    fingerprint: str
    name: str
    run_ids: tuple[str, ...]
    finished: float
    output: str


def list_selections(work_dir: str) -> list[Selection]:
    """The finished selections, newest first.

    Raises:
        UserError: the work_dir has none.
    """
    manifests = store.list_files(store.join(work_dir, "select"), f"*/{artifacts.MANIFEST}")
    urls = {file.url.rstrip("/").split("/")[-2]: file.url for file in manifests}
    if not urls:
        raise UserError(
            f"{store.redact(work_dir)}: found no finished selection (select/*/{artifacts.MANIFEST}); "
            "expected the work_dir of a run that reached `select`"
        )
    try:
        runs = history.read_runs(work_dir)
    except UserError as error:
        # Only names depend on the list.
        log.warning("%s; selections are named by their fingerprints", error)
        runs = []
    found = []
    for fingerprint, url in urls.items():
        own = [(at, entry) for at, entry in runs if entry.artifacts.get("select") == fingerprint]
        ids = tuple(dict.fromkeys(entry.run_id for _, entry in own))
        finished, output = (own[0][0], own[0][1].output) if own else (store.modified(url), "")
        found.append(Selection(fingerprint, ids[0] if ids else fingerprint, ids, finished, output))
    names = [name for selection in found for name in (selection.fingerprint, *selection.run_ids)]
    shortened = [
        Selection(s.fingerprint, _shorten(s.name, names), s.run_ids, s.finished, s.output) for s in found
    ]
    return sorted(shortened, key=lambda selection: (-selection.finished, selection.fingerprint))


def choose_selection(selections: Sequence[Selection], name: str | None, option: str = "--run") -> Selection:
    """The selection that `name` begins, or the newest.

    Args:
        selections: as `list_selections` returns them.
        name: the beginning of a run's id or of a fingerprint; None: the newest.
        option: what held the name, for the error message.

    Raises:
        UserError: none matches, or more than one.
    """
    if name is None:
        return selections[0]
    matching = [s for s in selections if any(id.startswith(name) for id in (s.fingerprint, *s.run_ids))]
    if len(matching) != 1:
        names = ", ".join(sorted(s.name for s in matching or selections))
        raise UserError(f"{option} {name}: {len(matching)} selections match; expected one of {names}")
    return matching[0]


def _shorten(name: str, names: Sequence[str]) -> str:
    """The shortest beginning of a name, of 8 characters or more, that begins no other name."""
    others = {other for other in names if other != name}
    lengths = range(_SHORT, len(name))
    return next((name[:n] for n in lengths if not any(other.startswith(name[:n]) for other in others)), name)
