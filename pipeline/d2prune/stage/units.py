"""Run units of work on an executor, except those that are already complete."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from d2prune import store
from d2prune.execution import Executor, Resources, metrics, progress
from d2prune.store import artifacts
from d2prune.store.artifacts import Receipt
from d2prune.store.completeness import iterate_complete_units
from d2prune.store.records import Receipts, pack_receipt, unpack_receipt

log = logging.getLogger(__name__)


class Unit(Protocol):
    """One unit of work. Picklable; its key identifies everything that decides its result."""

    @property
    def key(self) -> str:
        """Name of the unit's folder, unique within the stage."""
        ...


@dataclass(frozen=True)
class Work:
    """Units of one kind and the workers that run them.

    Attributes:
        label: name of the work in logs and metrics.
        folder: URL of the stage's folder, `work_dir/<stage>`.
        units: in canonical order.
        worker: builds a worker in the process where it will run; picklable. A worker takes a
            unit and returns its receipt.
        resources: the number of workers and what each of them holds.
        complete: unit key -> receipt of the units that are complete. Default: those whose receipts
            and files are in `folder`.
        describe: returns a note for the progress display, such as a rate.
    """

    label: str
    folder: str
    units: Sequence[Unit]
    worker: Callable[[], Callable[[Any], Receipt]]
    resources: Resources
    complete: Mapping[str, Receipt] | None = None
    describe: Callable[[], str] = str


def run_units(work: Work, executor: Executor) -> Receipts:
    """Run the units that are not complete.

    Returns:
        One receipt per unit, in the order of `work.units`.
    """
    keys = [unit.key for unit in work.units]
    complete = (
        work.complete.values() if work.complete is not None else iterate_complete_units(work.folder, keys)
    )
    receipts = {receipt.key: pack_receipt(receipt) for receipt in complete}
    pending = [unit for unit in work.units if unit.key not in receipts]
    n_complete = len(work.units) - len(pending)
    if n_complete:
        log.info("%s: %d of %d units already complete", work.label, n_complete, len(work.units))
    metrics.add(metrics.UNITS_PLANNED, len(pending), stage=work.label)
    results = executor.map(work.worker, pending, work.resources)
    shown = progress.track(results, work.label, len(work.units), n_complete, _count_samples, work.describe)
    for receipt in shown:
        metrics.add(metrics.UNITS_DONE, stage=work.label)
        receipts[receipt.key] = pack_receipt(receipt)
    return Receipts(unpack_receipt(receipts[key]) for key in keys)


def delete_units(folder: str, keys: Iterable[str]) -> None:
    """Delete units that a complete artifact does not need."""

    def delete(key: str) -> None:
        # The receipt first: a unit without one counts as incomplete, whatever other files remain.
        store.delete([artifacts.unit_url(folder, key, artifacts.RECEIPT)])
        store.delete([file.url for file in store.list_files(artifacts.unit_url(folder, key, ""))])

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(delete, keys))


def _count_samples(receipt: Receipt) -> int:
    """Rows of the unit's longest table, for the rate that the progress display shows."""
    return max((file.rows or 0 for file in receipt.files), default=0)
