"""Receipts of the units that write an output folder, kept in `work_dir/write`.

A receipt lists the objects its unit wrote to the output folder. A unit that wrote samples also
leaves their uids (`uids.npy`), from which the subset file is made. A unit is complete when its
receipt exists and every object it lists is in the output folder with the recorded size.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from d2prune import store
from d2prune.output import layout, subset
from d2prune.store import artifacts
from d2prune.store.artifacts import FileRecord, Receipt
from d2prune.store.completeness import find_complete_units, find_fault

FOLDER = "write"
"""Folder of the receipts in `work_dir`."""

_UIDS = "uids.npy"
"""Rows of a subset file, without its header."""
_CHECKSUMS = "checksums.bin"
"""16 bytes a sample, in the order of the uids: of units from which `write.stable` places samples."""

Ids = npt.NDArray[np.uint64]
"""Identity of samples, [N, 4]: two words of the uid, two of the checksum of what was embedded."""


def commit_unit(
    work_dir: str,
    key: str,
    objects: Iterable[FileRecord],
    counters: Mapping[str, int],
    uids: pa.ChunkedArray | None = None,
    checksums: pa.ChunkedArray | None = None,
) -> Receipt:
    """Write the receipt of a unit whose objects are already in the output folder.

    Args:
        work_dir: the receipt goes to `work_dir/write`.
        key: the unit's key.
        objects: what the unit wrote to the output folder.
        counters: what it counted.
        uids: of the samples it wrote, in order; None for a unit that wrote no samples.
        checksums: of the same samples; None where `read_ids` is not needed.
    """
    files = {} if uids is None else {_UIDS: subset.encode(uids.to_pylist()).tobytes()}
    if checksums is not None:
        files[_CHECKSUMS] = b"".join(checksums.to_pylist())
    facts = {"output": [dataclasses.asdict(record) for record in objects]}
    return artifacts.commit_unit(store.join(work_dir, FOLDER), key, files, counters, facts)


def written_objects(receipt: Receipt) -> list[FileRecord]:
    """The objects of the output folder that a unit wrote."""
    return [FileRecord(**record) for record in receipt.facts["output"]]


def read_uids(work_dir: str, receipts: Sequence[Receipt]) -> Iterator[subset.UidArray]:
    """Read the uids of each unit, checked against its receipt.

    Raises:
        DamagedFileError: a file is missing or does not match its receipt.
    """
    folder = store.join(work_dir, FOLDER)
    for receipt in receipts:
        yield np.frombuffer(artifacts.read_file(folder, receipt, _UIDS), dtype=subset.DTYPE)


def tar_of(receipt: Receipt) -> str:
    """Name of the tar that a unit wrote; empty if it wrote other files."""
    return next((file.name for file in written_objects(receipt) if file.name.endswith(".tar")), "")


def read_ids(work_dir: str, receipt: Receipt) -> Ids:
    """Read the identities of a unit's samples, in order, checked against its receipt.

    Raises:
        DamagedFileError: a file is missing or does not match the receipt.
    """
    folder = store.join(work_dir, FOLDER)
    halves = [
        np.frombuffer(artifacts.read_file(folder, receipt, name), "<u8").reshape(-1, 2)
        for name in (_UIDS, _CHECKSUMS)
    ]
    return np.concatenate(halves, axis=1)


def list_sizes(output: str, shared: bool = False) -> dict[str, int]:
    """Name -> size of each object of an output folder, and with `shared` of the tars beside it."""
    found = {file.url.rsplit("/", 1)[-1]: file.size for file in store.list_files(output, "*")}
    if shared:
        files = store.list_files(layout.shared_folder(output), "*")
        sizes = {file.url.rsplit("/", 1)[-1]: file.size for file in files}
        found |= {name: size for name, size in sizes.items() if layout.is_shared(name)}
    return found


def find_complete(
    work_dir: str, output: str, keys: Sequence[str], shared: bool = False
) -> dict[str, Receipt]:
    """Receipts, by unit key, of the units that are complete.

    Args:
        work_dir: holds the receipts.
        output: URL of the output folder, already claimed.
        keys: keys of the units to look for.
        shared: whether they write tars that outputs share.
    """
    sizes = list_sizes(output, shared)
    if not sizes:
        return {}
    return {
        key: receipt
        for key, receipt in find_complete_units(store.join(work_dir, FOLDER), keys).items()
        if find_fault(written_objects(receipt), sizes) is None
    }
