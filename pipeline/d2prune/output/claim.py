"""Ownership of an output folder: the claim file ties the folder to one run.

The claim is the first object written to the folder and holds the run's identity, a fingerprint of
everything that decides the output. A run that was killed finds its own claim and resumes. A run
with another identity is refused before it changes anything. Of two processes with the same
identity, the lease (`hold`) admits one at a time.
"""

import contextlib
import json
from collections.abc import Iterator

from d2prune import store
from d2prune.errors import BusyError, UserError
from d2prune.output import layout
from d2prune.store import lease


@contextlib.contextmanager
def hold(output: str, identity: str) -> Iterator[lease.Lease]:
    """Claim `output` and hold its lease during the block; first remove temporary files of killed writers.

    The lease is stored inside the folder while it is held and removed afterwards: an output folder
    has no subfolders (see `layout`).

    Args:
        output: URL of the output folder.
        identity: fingerprint of everything that decides the output's content.

    Raises:
        UserError: see `check`.
        BusyError: another process holds the lease.
    """
    check(output, identity)
    with lease.hold(output, label="output", keep_record=False) as held:
        claim(output, identity)
        remove_temporaries(output)
        yield held


@contextlib.contextmanager
def hold_shared(output: str) -> Iterator[lease.Lease]:
    """Hold the folder of shared tars beside an output, in which one process writes or prunes at a time.

    Raises:
        BusyError: another process holds it.
    """
    folder = layout.shared_folder(output)
    with lease.hold(folder, label="folder of shared tars", keep_record=False) as held:
        remove_temporaries(folder)
        yield held


def remove_lease(output: str) -> None:
    """Remove the lease of a killed process from a complete output; nothing happens if it is alive."""
    folder = store.join(output, lease.FOLDER)
    store.sweep_temporaries(folder)
    store.remove_empty_folders(folder)
    if store.list_entries(folder):
        with contextlib.suppress(BusyError), lease.hold(output, label="output", keep_record=False):
            pass


def claim(output: str, identity: str) -> None:
    """Write the claim, unless this run has written it before.

    Args:
        output: URL of the output folder.
        identity: fingerprint of everything that decides the output's content.

    Raises:
        UserError: see `check`.
    """
    if not check(output, identity):
        store.write_bytes(store.join(output, layout.CLAIM), encode(identity))


def encode(identity: str) -> bytes:
    """The bytes of the claim file."""
    return store.encode_record({"identity": identity})


def withdraw(output: str) -> None:
    """Remove the claim of a run that ends before it has written anything, so that another may follow."""
    store.delete([store.join(output, layout.CLAIM)])


def check(output: str, identity: str) -> bool:
    """Return whether this run has claimed `output` already; False means that the folder is empty.

    Changes nothing.

    Args:
        output: URL of the output folder.
        identity: fingerprint of everything that decides the output's content.

    Raises:
        UserError: the folder belongs to another run, or holds files without a claim.
    """
    shown = store.redact(output)
    owner = read_owner(output)
    if owner is None:
        # A process that has just started holds the lease before it writes the claim.
        names = [name for name in store.list_entries(output) if not _is_transient(name)]
        if layout.CLAIM in names:
            # Another process wrote the claim between the read and the listing.
            return check(output, identity)
        if names:
            others = f" and {len(names) - 1} more files" if len(names) > 1 else ""
            raise UserError(
                f"output {shown} is not empty and has no claim of a d2prune run "
                f"(found {names[0]}{others}); expected an empty folder"
            )
        return False
    if owner != identity:
        raise UserError(
            f"output {shown} holds another run's data "
            f"(claimed by {owner[:12]}, this run is {identity[:12]}); "
            "give each selection its own output folder"
        )
    return True


def read_owner(output: str) -> str | None:
    """Return the identity that has claimed a folder, None if there is no claim.

    Returns `unreadable` if the claim is not what d2prune writes.
    """
    try:
        return str(json.loads(store.read_bytes(store.join(output, layout.CLAIM)))["identity"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return "unreadable"


def _is_transient(name: str) -> bool:
    """Return whether a process of d2prune wrote the file before its claim, or was killed while it did."""
    return name.startswith(f"{lease.FOLDER}/") or name.startswith(store.TEMPORARY)


def remove_temporaries(output: str) -> None:
    """Remove what killed writers of this run left; call it only after `claim`, holding the lease."""
    store.sweep_temporaries(output)
    store.sweep_uploads(output)
