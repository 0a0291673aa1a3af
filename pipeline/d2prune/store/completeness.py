"""Which units of a stage are complete: their receipts and all files that these list are there.

Presence and sizes are compared in one listing of the stage's folder. Checksums are compared where
files are read (`artifacts.read_file`).
"""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from d2prune import store
from d2prune.store import artifacts
from d2prune.store.artifacts import RECEIPT, FileRecord, Manifest, Receipt
from d2prune.store.listing import iterate_files

_THREADS = 16
# Receipts that are requested before the first of them is used.
_AT_ONCE = 1_000


def find_damaged_units(folder: str, manifest: Manifest) -> dict[str, str]:
    """Units of an artifact that are no longer complete: unit key -> the first fault.

    Args:
        folder: the stage's folder, `work_dir/<stage>`.
        manifest: of the artifact.
    """
    sizes = _Sizes(folder)
    faults = {}
    for unit in manifest.units:
        found = sizes.of(unit.key)
        fault = f"{RECEIPT} is missing" if RECEIPT not in found else find_fault(unit.files, found)
        if fault is not None:
            faults[unit.key] = fault
    return faults


def find_complete_units(folder: str, keys: Iterable[str]) -> dict[str, Receipt]:
    """Receipts, by unit key, of the units that are complete; see `iterate_complete_units`."""
    return {receipt.key: receipt for receipt in iterate_complete_units(folder, keys)}


def iterate_complete_units(folder: str, keys: Iterable[str]) -> Iterator[Receipt]:
    """Yield the receipts of the units that are complete, in the order of the keys.

    Args:
        folder: the stage's folder, `work_dir/<stage>`.
        keys: keys of the units to look for.
    """
    sizes = _Sizes(folder)
    present = [key for key in keys if RECEIPT in sizes.of(key)]
    with ThreadPoolExecutor(_THREADS) as threads:
        for start in range(0, len(present), _AT_ONCE):
            some = present[start : start + _AT_ONCE]
            for receipt in threads.map(lambda key: artifacts.read_receipt(folder, key), some):
                if receipt is not None and find_fault(receipt.files, sizes.of(receipt.key)) is None:
                    yield receipt


def find_fault(files: Iterable[FileRecord], sizes: Mapping[str, int]) -> str | None:
    """The first file that is missing or has another size, in words; None if all are as recorded.

    Args:
        files: the files expected.
        sizes: name -> size of the files found.
    """
    for file in files:
        found = sizes.get(file.name)
        if found is None:
            return f"{file.name} is missing"
        if found != file.size:
            return f"{file.name} has {found} bytes instead of {file.size}"
    return None


class _Sizes:
    """Sizes of all files of a stage's units, from one listing; 150 bytes a unit besides its key."""

    def __init__(self, folder: str) -> None:
        self._files: dict[str, str] = {}
        for path, size in iterate_files(store.join(folder, "units"), 2):
            key, name = path.split("/")
            if not name.startswith(store.TEMPORARY):
                self._files[key] = f"{self._files.get(key, '')}{size} {name}/"

    def of(self, key: str) -> dict[str, int]:
        """Name -> size of the files of a unit."""
        entries = (entry.split(" ", 1) for entry in self._files.get(key, "").split("/")[:-1])
        return {name: int(size) for size, name in entries}
