"""One output folder, one run: the claim is the first object written there, and the last word on whose data it is.

A killed run leaves its claim and can go on; another run, or other parameters, are refused before
anything is touched. Of two that are the same, at the same moment, one works (`hold`).
"""

import contextlib
import json
from collections.abc import Iterator

from d2prune import store
from d2prune.errors import UserError
from d2prune.output import layout
from d2prune.store import lease


@contextlib.contextmanager
def hold(output: str, identity: str) -> Iterator[lease.Lease]:
    """Make `output` this run's, for the length of the block its alone, and sweep what a killed one left.

    The lease lies in the folder while it is held and leaves nothing there (see `layout`).

    Args:
        output: URL of the output folder.
        identity: fingerprint of everything that decides the output's content.

    Raises:
        UserError: as `check`.
        BusyError: another process is at work there.
    """
    check(output, identity)
    with lease.hold(output, label="output", keep_record=False) as held:
        claim(output, identity)
        sweep(output)
        yield held


def claim(output: str, identity: str) -> None:
    """Make `output` this run's, or find that it is already.

    Args:
        output: URL of the output folder.
        identity: fingerprint of everything that decides the output's content.

    Raises:
        UserError: as `check`.
    """
    if not check(output, identity):
        store.write_bytes(store.join(output, layout.CLAIM), json.dumps({"identity": identity}).encode())


def check(output: str, identity: str) -> bool:
    """Whether `output` is claimed by this run already; False: it is empty. Touches nothing.

    Args:
        output: URL of the output folder.
        identity: fingerprint of everything that decides the output's content.

    Raises:
        UserError: the folder holds another run's data, or files that no run wrote.
    """
    url = store.join(output, layout.CLAIM)
    shown = store.redact(output)
    try:
        text = store.read_bytes(url)
    except FileNotFoundError:
        # Who is at work there may not have got to its claim.
        found = [file for file in store.list_files(output) if f"/{lease.FOLDER}/" not in file.url]
        names = [store.redact(file.url).rsplit("/", 1)[-1] for file in found]
        if layout.CLAIM in names:
            # It came between the two looks.
            return check(output, identity)
        if names:
            raise UserError(
                f"output {shown} is not empty and no run of d2prune claims it "
                f"({names[0]} and {len(names) - 1} more); expected an empty folder"
            ) from None
        return False
    try:
        holder = str(json.loads(text)["identity"])
    except (ValueError, KeyError, TypeError):
        holder = "unreadable"
    if holder != identity:
        raise UserError(
            f"output {shown} holds another run's data (its claim is {holder[:12]}, this run is {identity[:12]}); "
            "give each selection a folder of its own"
        )
    return True


def sweep(output: str) -> None:
    """Remove what a killed writer of this run left under temporary names; only after `claim`."""
    store.sweep_temporaries(output)
