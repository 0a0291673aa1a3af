"""The write stage: reads the decisions and the input tars or tables, and writes the output folder."""

import contextlib
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from functools import partial

from d2prune import store
from d2prune.config.model import RunConfig
from d2prune.errors import UserError
from d2prune.execution import Guarded
from d2prune.inputs.pool import InputPool
from d2prune.output import claim, layout, receipts
from d2prune.output.manifest import read_manifest
from d2prune.stage.planned import Planned
from d2prune.stage.record import Built, Stage, StageRun, find_artifact
from d2prune.stage.units import Work, run_units
from d2prune.store import artifacts
from d2prune.store.artifacts import Manifest, Receipt
from d2prune.store.completeness import find_fault
from d2prune.write import latest
from d2prune.write.close import close_output
from d2prune.write.plan import KeepExecutableParams, StableParams, Unit, WriteParams, plan
from d2prune.write.stable import write_stable
from d2prune.write.worker import WriteWorker

log = logging.getLogger(__name__)


def _make_params(config: RunConfig, pool: InputPool) -> WriteParams:
    params = WriteParams(config.write.samples_per_shard)
    if config.write.stable:
        if not pool.has_images:
            raise UserError("write.stable: found true for tables of embeddings; expected tars, or false")
        return StableParams(params.samples_per_shard, config.write.keep_executable_members)
    if config.write.keep_executable_members:
        return KeepExecutableParams(params.samples_per_shard)
    return params


def _check_claim(config: RunConfig, pool: InputPool, planned: Planned) -> None:
    claim.check(config.output, planned.fingerprint)


def _find_artifact(stage: Stage, run: StageRun) -> Manifest | None:
    """Find the artifact; None if an object of the output folder is missing or damaged, too.

    Compares presence and sizes with the output's manifest, by one listing. An output that is not
    complete loses its manifest, so that no reader takes it for one that is.
    """
    output = run.config.output
    try:
        manifest = read_manifest(output)
    except UserError as error:
        log.warning("%s; writing the output again", error)
        return None
    if manifest is None:
        return None
    sizes = receipts.list_sizes(output, manifest.is_stable)
    faults = [fault for file in manifest.files if (fault := find_fault([file], sizes)) is not None]
    if faults:
        log.warning(
            "write: %d of %d files of output %s are missing or damaged and written again, such as: %s",
            len(faults),
            len(manifest.files),
            store.redact(output),
            faults[0],
        )
        run.guard()
        store.delete([store.join(output, layout.MANIFEST)])
        return None
    claim.remove_lease(output)
    return find_artifact(stage, run)


def _write_output(run: StageRun) -> Built:
    planned, work_dir, output = run.planned["write"], run.config.work_dir, run.config.output
    select = run.manifests["select"]
    # Runs of other work_dirs may write the same output, or prune it.
    with claim.hold(output, planned.fingerprint) as held, contextlib.ExitStack() as stack:
        # Left by an interrupted pruning of this run's earlier output.
        store.delete([store.join(output, layout.PRUNED)])
        worker = partial(WriteWorker, work_dir, output, planned.params.keeps_executable)
        work = Work("write", planned.folder, (), worker, run.one_core_each())
        executor = Guarded(run.executor, held.check)
        reused: dict[str, int] = {}
        units: Sequence[Unit]
        found: Sequence[Receipt]
        if isinstance(planned.params, StableParams):
            # Until the manifest lists its tars, a pruning would delete those that no other run lists.
            shared = stack.enter_context(claim.hold_shared(output))
            written = write_stable(run, work, Guarded(executor, shared.check))
            shared.check()
            units, found, reused = written.units, written.receipts, written.reused
        else:
            units = plan(run.pool.shards, run.manifests["embed"], select, planned.params)
            complete = receipts.find_complete(work_dir, output, [unit.key for unit in units])
            found = run_units(dataclasses.replace(work, units=units, complete=complete), executor)
        run.guard()
        held.check()
        close_output(
            output,
            work_dir,
            planned.fingerprint,
            planned.params,
            run.pool.shards,
            select,
            units,
            found,
            reused,
        )
    return Built(found, reused)


def _add_inputs(
    config: RunConfig, pool: InputPool, planned: Planned, earlier: Mapping[str, Planned]
) -> Planned:
    return latest.add_previous(config, planned) if config.write.stable else planned


def _record_latest(run: StageRun) -> None:
    if run.config.write.stable:
        latest.record_latest(run.config, run.planned["write"])


def _balance_counts(run: StageRun, built: Built) -> None:
    kept = run.manifests["select"].counters["kept"]
    artifacts.balance("write", kept, {"written": built.counters.get("written", 0)})


STAGE = Stage(
    name="write",
    inputs=("select",),
    params=_make_params,
    build=_write_output,
    check=_balance_counts,
    find=_find_artifact,
    preflight=_check_claim,
    is_output=True,
    add_inputs=_add_inputs,
    when_complete=_record_latest,
)
