"""Which units of a stage are complete: their receipts and all files that these list are there.

Presence and sizes are compared in one listing of the stage's folder. Checksums are compared where
files are read (`artifacts.read_file`).
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from d2prune import store
from d2prune.store import artifacts
from d2prune.store.artifacts import RECEIPT, FileRecord, Manifest, Receipt


def find_damaged_units(folder: str, manifest: Manifest) -> dict[str, str]:
    """Units of an artifact that are no longer complete: unit key -> the first fault.

    Args:
        folder: the stage's folder, `work_dir/<stage>`.
        manifest: of the artifact.
    """
    sizes = _list_sizes(folder)
    faults = {}
    for unit in manifest.units:
        found = sizes.get(unit.key, {})
        fault = f"{RECEIPT} is missing" if RECEIPT not in found else find_fault(unit.files, found)
        if fault is not None:
            faults[unit.key] = fault
    return faults


def find_complete_units(folder: str, keys: Iterable[str]) -> dict[str, Receipt]:
    """Receipts, by unit key, of the units that are complete.

    Args:
        folder: the stage's folder, `work_dir/<stage>`.
        keys: keys of the units to look for.
    """
    sizes = _list_sizes(folder)
    present = [key for key in keys if RECEIPT in sizes.get(key, {})]
    with ThreadPoolExecutor(16) as threads:
        found = threads.map(lambda key: artifacts.read_receipt(folder, key), present)
        return {
            receipt.key: receipt
            for receipt in found
            if receipt is not None and find_fault(receipt.files, sizes[receipt.key]) is None
        }


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


def _list_sizes(folder: str) -> dict[str, dict[str, int]]:
    """Unit key -> name -> size, of all files of a stage's units."""
    sizes: dict[str, dict[str, int]] = {}
    for file in store.list_files(store.join(folder, "units"), "*/*"):
        key, name = file.url.rsplit("/", 2)[1:]
        sizes.setdefault(key, {})[name] = file.size
    return sizes
