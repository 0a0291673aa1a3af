"""The driver of the dedup stage: exact copies in units of work, then near-duplicates on partitions.

The number of partitions and workers does not affect the result.
"""

from functools import partial

import numpy as np

from d2prune import store
from d2prune.dedup.copies import CopiesUnit, CopiesWorker, HashWorker, choose_buckets
from d2prune.dedup.job import DedupJob
from d2prune.dedup.member import CLOSING, DedupMember
from d2prune.dedup.params import DedupParams
from d2prune.execution import Executor, Resources
from d2prune.parts.reader import Parts
from d2prune.rounds.group import run_to_completion
from d2prune.rounds.rows import share_parts
from d2prune.stage.units import Work, run_units
from d2prune.store.artifacts import Receipt


def plan_dedup(parts: Parts, folder: str, fingerprint: str, params: DedupParams, workers: int) -> DedupJob:
    """Divide the parts among at most `workers` partitions.

    Args:
        parts: the pool, with the units of embed and graph, and of rescore if the run has it.
        folder: `work_dir/dedup`.
        fingerprint: of the artifact.
        params: of the stage.
        workers: at least 1.
    """
    bounds = share_parts(np.diff(parts.spans.starts).tolist(), workers)
    buckets = choose_buckets(len(parts)) if params.exact else 0
    return DedupJob(parts, folder, fingerprint, params, tuple(bounds), buckets)


def run_dedup(job: DedupJob, executor: Executor, resources: Resources) -> list[Receipt]:
    """Find the duplicates.

    Args:
        job: from `plan_dedup`.
        executor: runs the workers.
        resources: of one worker.

    Returns:
        One receipt per part, in canonical order.

    Raises:
        UserError: there is no such score, or a value is not finite.
        InfrastructureError: workers were lost too often.
    """
    for label, worker, keys in (
        ("dedup: hashes", HashWorker, job.hashes_keys),
        ("dedup: copies", CopiesWorker, job.copies_keys),
    ):
        units = [CopiesUnit(key, index) for index, key in enumerate(keys)]
        run_units(Work(label, job.folder, units, partial(worker, job), resources), executor)
    group = executor.group(partial(DedupMember, job), len(job.bounds) - 1, resources)
    try:
        receipts = run_to_completion(group, "commit", CLOSING, label="dedup")
    finally:
        group.close()
    store.delete([file.url for file in store.list_files(job.checkpoints)])
    return [receipt for member in receipts for receipt in member]
