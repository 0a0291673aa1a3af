"""Which files of a folder d2prune wrote; pruning deletes these and keeps all others.

An output folder is recognised by its claim and its manifest, a unit by its receipt, and the folder
of an artifact by the names that its stage writes.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from d2prune import store
from d2prune.errors import UserError
from d2prune.output import claim, layout
from d2prune.output.manifest import OutputManifest, read_manifest
from d2prune.runs.entries import RunEntry
from d2prune.store import artifacts, lease

PRUNED = layout.PRUNED
"""Name of a manifest or receipt while what it lists is being deleted."""


@dataclass(frozen=True)
class OwnedFolder:
    """The files of a folder.

    Attributes:
        url: of the folder.
        names: files that d2prune wrote, in the order in which they are deleted.
        foreign: number of files that it did not write.
        example: the first of these.
        record: the manifest or receipt that lists the files and is set aside as `pruned.json` until
            they are deleted; None if another file lists them.
    """

    url: str
    names: tuple[str, ...]
    foreign: int = 0
    example: str = ""
    record: str | None = None

    def describe_foreign(self) -> list[str]:
        """One line on the files that stay, if there are any."""
        if not self.foreign:
            return []
        files = "1 file" if self.foreign == 1 else f"{self.foreign} files"
        stay = "stays: " if self.foreign == 1 else "stay, such as "
        return [f"{store.redact(self.url)}: {files} that d2prune did not write {stay}{self.example}"]


def divide(
    url: str,
    entries: Sequence[str],
    own: Collection[str],
    last: Sequence[str] = (),
    record: str | None = None,
) -> OwnedFolder:
    """Divide the files of a folder into those that d2prune wrote and foreign ones.

    Args:
        url: of the folder.
        entries: relative names of everything in it.
        own: names that d2prune wrote; temporary files are its own as well.
        last: those of them to delete last, in this order.
        record: see `OwnedFolder`.
    """
    known = {*own, *last}
    names = [name for name in entries if name in known or name.startswith(store.TEMPORARY)]
    foreign = sorted(set(entries) - set(names))
    names.sort(key=lambda name: (last.index(name) if name in last else -1, name != artifacts.RECEIPT, name))
    return OwnedFolder(url, tuple(names), len(foreign), foreign[0] if foreign else "", record)


def find_output_files(entry: RunEntry) -> OwnedFolder | str:
    """The files of a run's output, or the reason why the folder is not that run's."""
    # The lease of a process that writes or prunes the output, which removes it.
    entries = store.list_entries(entry.output)
    found = [name for name in entries if not name.startswith(f"{lease.FOLDER}/")]
    if not found:
        return OwnedFolder(entry.output, ())
    try:
        manifest = read_output_manifest(entry)
    except UserError as error:
        return str(error)
    owner = claim.read_owner(entry.output)
    # The set-aside manifest is deleted last, so an interrupted pruning may have deleted the claim.
    resumed = owner is None and layout.MANIFEST not in found and PRUNED in found
    if owner != entry.identity and not resumed:
        return f"its claim ({layout.CLAIM}) is not that of run {entry.run_id}"
    if manifest is None:
        return f"it has no {layout.MANIFEST}"
    if manifest.identity != entry.identity:
        return f"its {layout.MANIFEST} is not that of run {entry.run_id}"
    own = {layout.MANIFEST, *_plain_names(manifest)}
    return divide(entry.output, found, own, last=(layout.CLAIM, PRUNED), record=layout.MANIFEST)


def read_output_manifest(entry: RunEntry) -> OutputManifest | None:
    """The manifest of a run's output, also one that is set aside.

    Raises:
        UserError: it is damaged.
    """
    return read_manifest(entry.output) or read_manifest(entry.output, PRUNED)


def _plain_names(manifest: OutputManifest) -> list[str]:
    return [file.name for file in manifest.files if is_plain_name(file.name)]


def is_plain_name(name: object) -> bool:
    """Whether a recorded name is that of a file in the folder itself and not a path elsewhere."""
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}


def parse_unit_files(receipt: Mapping[str, Any]) -> list[str]:
    """Names of the files that a receipt lists.

    Raises:
        ValueError, KeyError, TypeError: it is not a receipt.
    """
    names = [file["name"] for file in receipt["files"]]
    if not all(map(is_plain_name, names)):
        raise ValueError("expected names of files in the unit's folder")
    return names


def find_unit_files(url: str, entries: Sequence[str], listed: Iterable[str] | None) -> OwnedFolder | str:
    """The files of a unit, or the reason why they are unknown.

    Args:
        url: of the unit's folder.
        entries: relative names of everything in it.
        listed: the files that a manifest lists; None: only the unit's receipt does.
    """
    if listed is not None:
        return divide(url, entries, {artifacts.RECEIPT, *listed})
    for name in (artifacts.RECEIPT, PRUNED):
        if name in entries:
            try:
                files = parse_unit_files(artifacts.read_json(store.join(url, name)))
            except (ValueError, KeyError, TypeError, RecursionError):
                return f"its {name} cannot be read"
            own = {artifacts.RECEIPT, *files}
            return divide(url, entries, own, last=(PRUNED,), record=artifacts.RECEIPT)
    return f"it has no {artifacts.RECEIPT}"
