"""What every stage shares: find what is finished, run the rest, balance the books, write the manifest.

A stage is frozen params, a plan (units) and a worker; see docs/architecture.md. This file holds the order in which they
are put together, once.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline import artifacts, progress, storage
from pipeline.artifacts import Manifest, Receipt
from pipeline.execution import Executor, Resources, metrics

log = logging.getLogger(__name__)


class Unit(Protocol):
    """One unit of work: picklable, with a key that is also its content's identity."""

    @property
    def key(self) -> str:
        """Names the unit's folder."""
        ...


@dataclass(frozen=True)
class Planned:
    """A stage's artifact before it exists: all of it is known when the run starts.

    Attributes:
        stage: its name, also that of its folder.
        folder: `work_dir/<stage>`.
        params: what changes the result, a frozen dataclass.
        inputs: name -> fingerprint of what it is made from.
        guard: called before the manifest is written; raises where this run may no longer write.
    """

    stage: str
    folder: str
    params: Any
    inputs: Mapping[str, str]
    guard: Callable[[], None] = lambda: None

    @property
    def fingerprint(self) -> str:
        """Identity of the artifact."""
        return artifacts.fingerprint(self.stage, self.params, dict(self.inputs))

    def find(self) -> Manifest | None:
        """The artifact, where a run has finished it."""
        return artifacts.read_manifest(self.folder, self.fingerprint)


def plan(work_dir: str, stage: str, params: Any, inputs: Mapping[str, str]) -> Planned:
    """The artifact of `stage` in `work_dir`."""
    return Planned(stage, storage.join(work_dir, stage), params, inputs)


def complete(
    planned: Planned,
    executor: Executor,
    units: Sequence[Unit],
    make_worker: Callable[[], Callable[[Any], Receipt]],
    resources: Resources,
    check: Callable[[Sequence[Receipt]], None],
    facts: Callable[[Sequence[Receipt]], Mapping[str, Any]] = lambda receipts: {},
    finished: Mapping[str, Receipt] | None = None,
    describe: Callable[[], str] = str,
) -> Manifest:
    """The stage's artifact: finished units are taken as they are, the others run, then the manifest is written.

    Args:
        planned: identity and place.
        executor: runs the units.
        units: in canonical order.
        make_worker: builds a worker; picklable.
        resources: of one worker, and how many.
        check: raises BooksError unless the receipts balance.
        facts: what to record of the whole artifact.
        finished: receipts by unit key, where having a receipt is not enough to be finished.
        describe: how it goes, for who watches.
    """
    announce(planned)
    receipts = run_units(planned.stage, planned.folder, executor, units, make_worker, resources, finished, describe)
    return commit(planned, [receipts[unit.key] for unit in units], check, facts)


def run_units(
    label: str,
    folder: str,
    executor: Executor,
    units: Sequence[Unit],
    make_worker: Callable[[], Callable[[Any], Receipt]],
    resources: Resources,
    finished: Mapping[str, Receipt] | None = None,
    describe: Callable[[], str] = str,
) -> dict[str, Receipt]:
    """Run the units that have no receipt yet, and return those of all by key.

    Args:
        label: what the log calls them.
        folder: of the stage.
        executor: as of `complete`, like the rest.
        units: in any order.
        make_worker: builds a worker; picklable.
        resources: of one worker, and how many.
        finished: receipts by unit key, where having a receipt is not enough to be finished.
        describe: how it goes, for who watches.
    """
    receipts = dict(finished) if finished is not None else _receipts(folder, units)
    todo = [unit for unit in units if unit.key not in receipts]
    n_finished = len(units) - len(todo)
    if n_finished:
        log.info("%s: %d of %d units are finished already", label, n_finished, len(units))
    results = executor.map(make_worker, todo, resources)
    for receipt in progress.track(results, label, len(units), n_finished, _samples, describe):
        metrics.add(metrics.UNITS_DONE, stage=label)
        receipts[receipt.key] = receipt
    return receipts


def _samples(receipt: Receipt) -> int:
    """Rows of a unit's longest table: its samples, as far as a rate needs to know."""
    return max((file.rows or 0 for file in receipt.files), default=0)


def announce(planned: Planned) -> None:
    """Log which parameters differ from the nearest artifact that already exists."""
    changed = artifacts.changed_params(planned.folder, dataclasses.asdict(planned.params))
    if changed:
        log.info("%s: %s", planned.stage, "; ".join(changed))


def commit(
    planned: Planned,
    receipts: Sequence[Receipt],
    check: Callable[[Sequence[Receipt]], None],
    facts: Callable[[Sequence[Receipt]], Mapping[str, Any]] = lambda receipts: {},
) -> Manifest:
    """Balance the books of finished units and write the manifest; arguments as of `complete`."""
    check(receipts)
    manifest = Manifest(
        stage=planned.stage,
        fingerprint=planned.fingerprint,
        params=dataclasses.asdict(planned.params),
        inputs=dict(planned.inputs),
        units=tuple(receipts),
        counters=artifacts.sum_counters(receipts),
        facts=dict(facts(receipts)),
    )
    planned.guard()
    return artifacts.commit_manifest(planned.folder, manifest)


def _receipts(folder: str, units: Sequence[Unit]) -> dict[str, Receipt]:
    """The receipts that exist, by key."""
    with ThreadPoolExecutor(16) as pool:
        found = pool.map(lambda unit: artifacts.read_receipt(folder, unit.key), units)
        return {receipt.key: receipt for receipt in found if receipt is not None}
