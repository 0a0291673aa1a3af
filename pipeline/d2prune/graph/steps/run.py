"""The steps put together: each runs its units, those that a run has finished before are taken as they are."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from d2prune import store
from d2prune.execution import Executor, Resources
from d2prune.graph.steps import job as pool
from d2prune.graph.steps.distinct import copies, distinct
from d2prune.graph.steps.edges import found_for_checked, merge, neighbors
from d2prune.graph.steps.job import Job, StepWorker
from d2prune.graph.steps.quantise import NPROBE, layout, measured_recall, quantiser, truth
from d2prune.graph.steps.search import VISITS, assign, search
from d2prune.knn.recall import Recall
from d2prune.stage.units import Work, run_units
from d2prune.store import artifacts
from d2prune.store.artifacts import Receipt

log = logging.getLogger(__name__)

# A bucket sorts 24 bytes a row: about 1 GB at this size.
_BUCKET_ROWS = 2**23
_ON_GPU = (quantiser, assign, search)
# Enough partitions for a few dozen workers, unless they became so small that rows travel for
# nothing; then as many as keep a worker's share of the rows within 2 GiB.
_SMALL_PARTITION, _MANY_PARTITIONS, _LARGE_PARTITION = 2**27, 64, 2**31


def build(
    job: Job,
    executor: Executor,
    one: Resources,
    many: Resources,
    check_recall: Callable[[Recall, int, int], None],
) -> tuple[Job, list[Receipt], dict[str, Any]]:
    """Build the graph.

    Args:
        job: as known at the start.
        executor: runs the units.
        one: of the worker that trains the quantiser: it has a machine to itself.
        many: of all others; only steps that multiply matrices get the GPUs of either.
        check_recall: told of recall, nprobe and nlist before the last step; raises if it is too low.

    Returns:
        The job with all that became known; one receipt per part, in canonical order, with a
        NEIGHBORS table; and the facts of the artifact.

    Raises:
        UserError: an embedding without direction, or from `check_recall`.
    """

    def step(function: Callable[[Job, int], Receipt], count: int) -> list[Receipt]:
        name = function.__name__
        units = pool.units(job, name, count)
        alone = function in (quantiser, layout)
        threads = max(job.layout.threads, int(one.num_cpus)) if alone else job.layout.threads
        worker = partial(StepWorker, job.with_layout(layout=replace(job.layout, threads=threads)), function)
        resources = one if alone else many
        if function not in _ON_GPU:
            resources = replace(resources, num_gpus=0)
        return run_units(Work(f"graph: {name}", job.folder, units, worker, resources), executor)

    n_parts = len(job.parts)
    job = job.with_layout(buckets=job.layout.buckets or max(1, -(-int(job.starts[-1]) // _BUCKET_ROWS)))
    distinct_receipts = step(distinct, n_parts)
    members = np.array([receipt.facts["distinct"] for receipt in distinct_receipts])
    for receipt in step(copies, job.buckets):
        for part, count in receipt.facts["copies"]:
            members[part] -= count
    row_bytes = max(receipt.facts["row_bytes"] for receipt in distinct_receipts)
    partitions = job.layout.partitions or choose_partitions(int(members.sum()) * row_bytes)
    job = job.with_layout(members=tuple(np.cumsum([0, *members]).tolist()), partitions=partitions)

    (trained,) = step(quantiser, 1)
    step(truth, n_parts)
    (laid_out,) = step(layout, 1)
    nlist, nprobe = trained.facts["nlist"], laid_out.facts[NPROBE]
    log.info("graph: %d lists in %d partitions, each row visits %d", nlist, job.partitions, nprobe)
    visits = np.sum([receipt.facts[VISITS] for receipt in step(assign, n_parts)], axis=0)
    job = job.with_layout(slices=min(n_parts, max(1, -(-int(visits.max()) // job.layout.visitors))))
    step(search, job.partitions * job.slices)
    step(merge, n_parts)
    recall = measured_recall(job, found_for_checked(job))
    if recall is not None:
        check_recall(recall, nprobe, nlist)
    receipts = step(neighbors, n_parts)
    return job, receipts, facts_of(job.params.n_neighbors, nlist, nprobe, recall)


def facts_of(n_neighbors: int, nlist: int, nprobe: int, recall: Recall | None) -> dict[str, Any]:
    """What the artifact tells of itself."""
    facts: dict[str, Any] = {"n_neighbors": n_neighbors, "nlist": nlist, "nprobe": nprobe}
    if recall is not None:
        facts |= {
            "recall": recall.value,
            "recall_low": recall.low,
            "recall_high": recall.high,
            "recall_queries": recall.n_queries,
        }
    return facts


def choose_partitions(n_bytes: int) -> int:
    """How many partitions for members of so many bytes."""
    return max(1, min(_MANY_PARTITIONS, -(-n_bytes // _SMALL_PARTITION)), -(-n_bytes // _LARGE_PARTITION))


def clean(job: Job) -> None:
    """Delete what a finished graph does not need: the units of all steps but the centroids and the result."""
    if not job.members:
        return
    n_parts = len(job.parts)
    counts = {copies: job.buckets, search: job.partitions * job.slices, layout: 1}
    counts |= dict.fromkeys((distinct, truth, assign, merge), n_parts)
    keys = [job.key(step.__name__, index) for step, count in counts.items() for index in range(count)]

    def delete(key: str) -> None:
        # The receipt first: a unit without one is not finished, whatever else is left of it.
        store.delete([artifacts.unit_url(job.folder, key, artifacts.RECEIPT)])
        store.delete([file.url for file in store.list_files(artifacts.unit_url(job.folder, key, "*"))])

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(delete, keys))
