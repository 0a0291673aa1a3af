"""The embed stage: reads tars or tables of embeddings and writes one part per input shard."""

import dataclasses
import logging
from collections.abc import Sequence
from functools import partial
from typing import cast

from d2prune.config.model import RunConfig
from d2prune.embed.params import EmbedParams, plan
from d2prune.embed.part import EMBEDDED, FILTERED, READ, REJECTED
from d2prune.embed.progress_note import start_note
from d2prune.embed.resolve import resolve_models, resolve_params
from d2prune.embed.tables import importer
from d2prune.embed.tables.importer import ImportParams
from d2prune.errors import UserError
from d2prune.execution import Resources
from d2prune.inputs.pool import InputPool
from d2prune.inputs.shards import TarShard
from d2prune.inputs.tables.files import TableShard
from d2prune.inputs.tables.schema_check import check_files, check_uids
from d2prune.parts import shard_urls
from d2prune.stage.planned import Planned
from d2prune.stage.record import Built, Stage, StageRun
from d2prune.stage.units import Work
from d2prune.store import artifacts

log = logging.getLogger(__name__)


def list_unit_keys(pool: InputPool, params: EmbedParams | ImportParams) -> list[str]:
    """Keys of the units of a pool, one per shard."""
    if isinstance(params, ImportParams):
        return [unit.key for unit in importer.plan(cast(Sequence[TableShard], pool.shards), params)]
    return [unit.key for unit in plan(cast(Sequence[TarShard], pool.shards), params)]


def _build(run: StageRun) -> Built:
    imports = isinstance(run.planned["embed"].params, ImportParams)
    return Built(run.run_units(_plan_import(run) if imports else _plan_embedding(run)))


def _plan_import(run: StageRun) -> Work:
    planned = run.planned["embed"]
    units = importer.plan(cast(Sequence[TableShard], run.pool.shards), planned.params)
    make_worker = partial(importer.ImportWorker, planned.folder, planned.params, run.config.filter.words)
    return Work("embed", planned.folder, units, make_worker, run.one_core_each(), describe=start_note())


def _plan_embedding(run: StageRun) -> Work:
    from d2prune.embed import worker

    planned, config, resources = run.planned["embed"], run.config.embed, _worker_resources(run)
    first, *others = resolve_models(run.config)
    make_worker = partial(
        worker.EmbedWorker,
        planned.folder,
        planned.params,
        *first,
        decode_processes=min(int(resources.num_cpus), worker.MAX_PROCESSES),
        image_timeout=config.image_timeout,
        others=tuple(others),
        helpers=run.executor.helpers(resources) if config.decode == "remote" else None,
        words=run.config.filter.words,
    )
    units = plan(cast(Sequence[TarShard], run.pool.shards), planned.params)
    note = start_note("each worker loads the model first")
    return Work("embed", planned.folder, units, make_worker, resources, describe=note)


def _worker_resources(run: StageRun) -> Resources:
    """Return the resources of a worker: a GPU and its share of the cores for decoding, or one core."""
    from d2prune.embed import worker

    num_gpus = run.config.ray.num_gpus
    cores = run.executor.worker_cores(max(1.0, run.executor.cpus_per_gpu() * num_gpus))
    return dataclasses.replace(
        run.one_core_each(), num_cpus=cores, num_gpus=num_gpus, units_in_flight=worker.SHARDS_IN_FLIGHT
    )


def _check(run: StageRun, built: Built) -> None:
    from d2prune.embed import worker

    counters = built.counters
    books = {name: counters.get(name, 0) for name in (EMBEDDED, REJECTED, FILTERED)}
    artifacts.balance("embed", counters[READ], books)
    worker.check_reject_rate(counters, run.config.embed.max_reject_rate)
    if not counters[EMBEDDED]:
        raise UserError(f"input: none of {counters[READ]} samples could be embedded")


def _check_tables(config: RunConfig, pool: InputPool, planned: Planned) -> None:
    """Check all files of a table pool, unless they have been imported."""
    params = planned.params
    if isinstance(params, ImportParams) and planned.find() is None:
        copied = check_files(pool.tables, params.columns, params.fields, params.dimension)
        if copied:
            log.info(
                "embed: the embeddings of %d of %d tables are copied to work_dir, since %s; float16 and "
                "float32 in npy files and uncompressed npz files would be read where they are",
                len(copied),
                len(pool.tables),
                copied[0],
            )
        if params.columns.uid is not None:
            check_uids(pool.tables, params.columns.uid)


def _record_urls(run: StageRun) -> None:
    shard_urls.record(run.config.work_dir, run.planned["embed"].fingerprint, run.pool.shards)


STAGE = Stage(
    name="embed",
    inputs=("pool",),
    params=resolve_params,
    build=_build,
    check=_check,
    preflight=_check_tables,
    when_complete=_record_urls,
    other_files=(shard_urls.FILE,),
)
