"""Builds the index of a finished run: runs the steps that are not complete, then writes the merged view.

Reads a `FinishedRun`; writes the artifact `work_dir/index` (one shard per partition) and a folder with
the merged view (`merge.py`). Invariant: the merged view's bytes depend on the graph and the embeddings
only, never on partitions, workers or interruptions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from d2prune import store
from d2prune.compiled.threads import available_cores
from d2prune.execution import Executor, Guarded, InProcess, Resources
from d2prune.graph.steps.quantise import CENTROIDS, SIZES
from d2prune.index import merge, steps
from d2prune.index.bodies import plan_partitions
from d2prune.index.job import IndexJob, open_job
from d2prune.index.views import import_faiss
from d2prune.runs.artifact_kinds import STAGE_NAME
from d2prune.runs.finished import FinishedRun
from d2prune.stage.rebuilding import rebuild_damaged
from d2prune.stage.units import Work, delete_units, run_units
from d2prune.store import artifacts, lease
from d2prune.store.artifacts import Manifest, Receipt
from d2prune.store.completeness import find_damaged_units
from d2prune.store.npy import npy_bytes

PARTITION_BYTES = 2**31
"""A worker holds one partition."""


def build_index(
    run: FinishedRun,
    output: str | None = None,
    executor: Executor | None = None,
    workers: int = 1,
    partition_bytes: int = PARTITION_BYTES,
) -> str:
    """Build what is missing of a run's index; return the path of the folder with the merged view.

    Args:
        run: the run.
        output: local folder for the merged view; None: inside the work_dir, which must be local then.
        executor: runs the units; None: this process.
        workers: that share the units.
        partition_bytes: of a partition, approximately; changes no byte of the merged view.

    Raises:
        UserError: the pool has no embeddings, or `output` is not local or holds something else.
        BusyError: a run is in progress in this work_dir.
        BooksError: samples in the index and in the pool differ.
    """
    import_faiss()
    folder = merge.choose_folder(run, output)
    with lease.hold(run.work_dir) as held:
        # This process holds the lease, so what is being written there are leftovers of killed ones.
        store.sweep_temporaries(run.work_dir)
        guarded = Guarded(executor or InProcess(), held.check)
        threads = available_cores() if executor is None else 1
        job = open_job(run, threads)

        def build() -> None:
            built, manifest = _build_shards(job, guarded, Resources(workers), partition_bytes, held.check)
            merge.write_merged(built, manifest, folder)

        rebuild_damaged(build, held.check)
    return folder


def _build_shards(
    job: IndexJob,
    executor: Executor,
    resources: Resources,
    partition_bytes: int,
    guard: Callable[[], None],
) -> tuple[IndexJob, Manifest]:
    found = artifacts.read_manifest(job.folder, job.fingerprint)
    if found is not None and not find_damaged_units(job.folder, found):
        facts = found.facts
        if artifacts.read_receipt(job.folder, facts["layout"]) is not None:
            return replace(job, n_dims=facts["dimensions"], layout_key=facts["layout"]), found

    def run_step(name: str, function: Callable[[IndexJob, int], Receipt], count: int) -> Sequence[Receipt]:
        units = [steps.IndexUnit(job.key(name, index), index) for index in range(count)]
        worker = partial(steps.IndexWorker, job, function)
        return run_units(Work(f"index: {name}", job.folder, units, worker, resources), executor)

    if not job.lists_of_graph:
        run_step("train", steps.train_lists, 1)
    if job.assigns:
        run_step("lists", steps.assign_lists, job.n_parts)
    centroids_LD = job.find_centroids()
    n_dims = centroids_LD.shape[1]
    sizes_L = np.zeros(len(centroids_LD), np.int64)
    for part in range(job.n_parts):
        sizes_L += np.bincount(job.lists(part), minlength=len(sizes_L))
    job = replace(job, n_dims=n_dims)
    bounds = plan_partitions(sizes_L, job.row_bytes, partition_bytes)
    guard()
    files = {CENTROIDS: npy_bytes(centroids_LD), SIZES: npy_bytes(sizes_L)}
    artifacts.commit_unit(job.folder, job.key("layout"), files)
    job = replace(job, bounds=tuple(bounds), layout_key=job.key("layout"))
    if job.n_partitions > 1:
        run_step("scatter", steps.send_codes, job.n_parts)
    receipts = run_step("partition", steps.write_partition, job.n_partitions)
    artifacts.balance(STAGE_NAME, len(job.run), {"indexed": artifacts.sum_counters(receipts)["samples"]})
    manifest = Manifest(
        stage=STAGE_NAME,
        fingerprint=job.fingerprint,
        params={},
        inputs={"graph": job.run.graph.fingerprint},
        units=tuple(receipts),
        counters=artifacts.sum_counters(receipts),
        facts={"dimensions": n_dims, "layout": job.layout_key},
    )
    guard()
    artifacts.commit_manifest(job.folder, manifest)
    intermediate = [("train", 1), ("lists", job.n_parts), ("scatter", job.n_parts)]
    delete_units(job.folder, [job.key(name, index) for name, count in intermediate for index in range(count)])
    return job, manifest
