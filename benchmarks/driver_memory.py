"""Peak memory of a driver that has many units: their receipts, a manifest of them, and a listing of files.

    python -m benchmarks.driver_memory --units 1000000

Receipts, manifest and listing are generated as an import of tables with `--units` parts would write
them; nothing else is built. Each step runs in a fresh process. Prints a markdown table: the peak of
the process, less that of one that has imported the same, and CPU seconds.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from d2prune.store import checksum, completeness
from d2prune.store.manifest_file import load_manifest, write_manifest
from d2prune.store.records import FileRecord, Manifest, Receipt, Receipts

FILES = ("samples.parquet", "rejects.parquet")


def make_receipts(units: int) -> Iterator[Receipt]:
    """Yield receipts like those of an import whose embeddings stay in the input."""
    for number in range(units):
        sums = [checksum(f"{number} {index}".encode()) for index in range(5)]
        files = tuple(
            FileRecord(name, 9_990, 400_000 + number % 9_973, sums[2 * index], sums[2 * index + 1])
            for index, name in enumerate(FILES)
        )
        name = f"{number:08d}"
        array = {"file": f"{name}.npz", "size": 15_360_264, "version": f"15360264-{number * 7919}"}
        array |= {"offset": 264, "dtype": "<f2", "checksum": sums[4]}
        place = {"shard": name, "first": 0, "rows": 10_000, "width": 768, "arrays": {"image_emb": array}}
        counters = {"read": 10_000, "embedded": 9_990, "rejected": 10}
        yield Receipt(f"{name}-{sums[0][:16]}", files, counters, {"dimension": 768, "in_place": place})


def keep_receipts(units: int, path: str) -> None:
    """Hold all receipts, and write their manifest."""
    write_manifest(path, Manifest("embed", "f", {}, {}, Receipts(make_receipts(units)), {}))


def read_manifest(units: int, path: str) -> None:
    """Read the manifest."""
    assert len(load_manifest(path).units) == units


def list_units(units: int, path: str) -> None:
    """Hold the sizes of all files of a stage, as before a stage is skipped or resumed."""

    def listing(folder: str, levels: int) -> Iterator[tuple[str, int]]:
        for receipt in make_receipts(units):
            yield f"{receipt.key}/receipt.json", 1_400
            for file in receipt.files:
                yield f"{receipt.key}/{file.name}", file.size

    completeness.iterate_files = listing
    assert not completeness.find_damaged_units("x", load_manifest(path))


def measure(step: Callable[[], None]) -> tuple[float, float]:
    """Run a step; return its peak in MiB, less what was there, and CPU seconds."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, time.process_time() - start


def main() -> None:
    """Measure every step and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=1_000_000)
    units = parser.parse_args().units
    print("| step | units | peak MiB | CPU s |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="d2prune-driver-") as folder:
        path = str(Path(folder, "manifest.json"))
        for step in (keep_receipts, read_manifest, list_units):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                mib, seconds = process.submit(measure, partial(step, units, path)).result()
            name = step.__name__.replace("_", " ")
            print(f"| {name} | {units:,} | {mib:,.0f} | {seconds:,.1f} |", flush=True)


if __name__ == "__main__":
    main()
