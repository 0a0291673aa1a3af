"""Write an output whose tars outlast it: decisions first, then the tars that no earlier output wrote.

The decisions tell which samples are kept; `placement.py` places them in the tars of the output
before and in new ones. A tar is a unit whose key depends on its samples alone, so one that is there
is complete.

Memory of the driver: about 200 bytes a kept sample, while they are placed.
"""

import dataclasses
import itertools
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from d2prune import store
from d2prune.errors import DamagedFileError
from d2prune.execution import Executor
from d2prune.output import layout, receipts
from d2prune.output.receipts import Ids
from d2prune.stage.record import StageRun
from d2prune.stage.units import Work, run_units
from d2prune.store import artifacts
from d2prune.store.artifacts import Manifest, Receipt
from d2prune.store.records import Receipts
from d2prune.write.latest import PREVIOUS
from d2prune.write.placement import Int64, name_tars, place, split_at_parts
from d2prune.write.plan import DecisionsUnit, PoolPart, SharedTarUnit, list_parts, plan_decisions

log = logging.getLogger(__name__)

_SHARDS, _SAMPLES = "reused_shards", "reused_samples"
_THREADS = 16


@dataclass(frozen=True)
class StableOutput:
    """What was written.

    Attributes:
        units: tars in order, then decisions.
        receipts: of the units.
        reused: `reused_shards` and `reused_samples`, which the output before has, too.
    """

    units: Sequence[SharedTarUnit | DecisionsUnit]
    receipts: Sequence[Receipt]
    reused: dict[str, int]


def write_stable(run: StageRun, work: Work, executor: Executor) -> StableOutput:
    """Write the decisions of all parts, then the tars that are not complete.

    Args:
        run: the run; its output is claimed, and the folder of shared tars held.
        work: the worker and the resources of the units, without units.
        executor: runs them.
    """
    output, work_dir = run.config.output, run.config.work_dir
    parts = list_parts(run.pool.shards, run.manifests["embed"], run.manifests["select"])
    decisions = plan_decisions(parts, with_ids=True)
    found = receipts.find_complete(work_dir, output, [unit.key for unit in decisions])
    listed = run_units(dataclasses.replace(work, units=decisions, complete=found), executor)
    kept = _read_all(work_dir, listed)
    now = np.concatenate(kept)
    before, manifest = _find_before(run)
    rows = place([ids for _, ids in before], now, run.planned["write"].params.samples_per_shard)
    starts = np.cumsum([0, *map(len, kept)])
    tars = _plan_tars(run, parts, starts, now, rows)
    found = receipts.find_complete(work_dir, output, [unit.key for unit in tars], shared=True)
    names = {name for name, _ in before}
    reused = {
        _SHARDS: sum(unit.names.tar in names for unit in tars),
        _SAMPLES: sum(
            len(rows_S) for unit, rows_S in zip(tars, rows, strict=True) if unit.names.tar in names
        ),
    }
    if manifest is not None and manifest.fingerprint == run.planned["write"].fingerprint:
        # The same output once more, since a file of it is missing: count as the first time.
        reused = {name: manifest.facts[name] for name in reused}
    else:
        _log_plan(run, manifest, tars, reused, sum(map(len, rows)))
    lost = [unit.names.tar for unit in tars if unit.names.tar in names and unit.key not in found]
    if lost:
        log.warning(
            "write: %d of %d tars to re-use are missing or damaged and written again, such as %s",
            len(lost),
            reused[_SHARDS],
            lost[0],
        )
    # Units are sent to workers, those that are complete to none.
    pending = [dataclasses.replace(unit, pieces=()) if unit.key in found else unit for unit in tars]
    written = run_units(dataclasses.replace(work, units=pending, complete=found), executor)
    return StableOutput([*pending, *decisions], Receipts(itertools.chain(written, listed)), reused)


def _read_all(work_dir: str, units: Sequence[Receipt]) -> list[Ids]:
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(lambda receipt: receipts.read_ids(work_dir, receipt), units))


def _find_before(run: StageRun) -> tuple[list[tuple[str, Ids]], Manifest | None]:
    """Find the tars of this output if it was complete before, else of the one before: names and samples.

    The samples of a tar whose record is damaged count as new.
    """
    planned = run.planned["write"]
    found: list[tuple[str, Ids]] = []
    manifest = None
    for fingerprint in (planned.fingerprint, planned.inputs.get(PREVIOUS)):
        recorded = None if fingerprint is None else artifacts.read_manifest(planned.folder, fingerprint)
        if recorded is None:
            continue
        manifest = recorded
        tars = [unit for unit in manifest.units if receipts.tar_of(unit)]
        found = _read_tars(run.config.work_dir, tars)
        if len(found) == len(tars):
            break
    return found, manifest


def _read_tars(work_dir: str, tars: Sequence[Receipt]) -> list[tuple[str, Ids]]:
    def read(unit: Receipt) -> tuple[str, Ids] | None:
        try:
            return receipts.tar_of(unit), receipts.read_ids(work_dir, unit)
        except DamagedFileError as error:
            log.warning("%s; the samples of this tar are written to new ones", error.args[0])
            return None

    with ThreadPoolExecutor(_THREADS) as threads:
        return [pair for pair in threads.map(read, tars) if pair is not None]


def _plan_tars(
    run: StageRun, parts: Sequence[PoolPart], starts: Int64, now: Ids, rows: Sequence[Int64]
) -> list[SharedTarUnit]:
    keep_executable = run.planned["write"].params.keeps_executable
    units = []
    for rows_S, digest in zip(rows, name_tars(rows, now, keep_executable), strict=True):
        pieces = tuple((parts[part], numbers) for part, numbers in split_at_parts(rows_S, starts))
        names = layout.ShardFiles.stable(digest)
        units.append(SharedTarUnit(artifacts.unit_key(names.tar, "shared"), names, pieces))
    return units


def _log_plan(
    run: StageRun,
    before: Manifest | None,
    tars: Sequence[SharedTarUnit],
    reused: dict[str, int],
    n_samples: int,
) -> None:
    if before is None:
        root = store.redact(layout.shared_folder(run.config.output))
        log.info("write: no earlier output with these parameters of write in %s: all tars are new", root)
        return
    log.info(
        "write: %d of %d tars, with %d of %d samples, are those of output %s",
        reused[_SHARDS],
        len(tars),
        reused[_SAMPLES],
        n_samples,
        before.fingerprint[:16],
    )
