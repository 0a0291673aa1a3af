"""Builds the graph: picks the steps for the size of the pool, runs them, and checks the result.

Reads the embeddings of the embed artifact; writes `neighbors.parquet` (schemas.NEIGHBORS), one unit
per input shard, row-aligned with its part. One worker builds small pools and exact graphs in
memory; the steps of `steps.sequence` build all others, with the same bytes. Invariant: the graph
depends on the embeddings and the parameters only, never on workers or layout.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

from d2prune.execution import Executor, Resources
from d2prune.graph.cut_off import find_cut_off
from d2prune.graph.params import GraphParams, Layout, choose_buckets
from d2prune.graph.steps.edges import check_symmetry
from d2prune.graph.steps.job import Job
from d2prune.graph.steps.sequence import IN_MEMORY, SHARDED, STEPS, WITHOUT_EDGES
from d2prune.graph.steps.step import Step, StepUnit, StepWorker, once, step_key
from d2prune.knn.in_memory import wants_lists
from d2prune.parts.reader import Parts
from d2prune.stage.units import Work, delete_units, run_units
from d2prune.store.artifacts import Receipt


def plan_job(
    pool: Parts,
    embed_fingerprint: str,
    folder: str,
    params: GraphParams,
    layout: Layout,
) -> Job:
    """Describe the graph to build.

    Args:
        pool: the pool, with the units of embed and those that `drop_score` is read from.
        embed_fingerprint: of the embed artifact.
        folder: `work_dir/graph`.
        params: of the stage.
        layout: how to divide the work.

    Raises:
        UserError: the pool has no score named `drop_score`.
    """
    job = Job(STEPS, pool, embed_fingerprint, folder, params, layout)
    cut_off = None
    if params.drop_score is not None:
        cut_off = find_cut_off(pool, params.drop_score, params.drop_fraction)
    return replace(job, cut_off=cut_off, buckets=layout.buckets or choose_buckets(len(job.spans)))


def build_graph(
    job: Job, executor: Executor, whole_machine: Resources, one_core: Resources
) -> tuple[Job, list[Receipt]]:
    """Run the steps that are not complete, and check the graph.

    Args:
        job: from `plan_job`.
        executor: runs the units.
        whole_machine: resources of a step whose one unit gets a complete machine.
        one_core: resources of a worker of the other steps.

    Returns:
        The job with everything its steps found out, and one receipt per part, in canonical order.

    Raises:
        UserError: an embedding is zero or not finite, or the target recall was missed.
        BooksError: the graph is not symmetric.
    """
    steps = _choose_steps(job)
    for step in steps:
        label = f"graph: {step.name}" if len(steps) > 1 else "graph"
        receipts = _run_step(step, label, job, executor, whole_machine, one_core)
        job = step.after(job, receipts)
    if steps == IN_MEMORY:
        # Its one unit has committed the units of all parts.
        receipts = [job.receipt("neighbors", part) for part in range(len(job.parts))]
    check_symmetry(receipts)
    return job, receipts


def delete_intermediate_units(job: Job) -> None:
    """Delete the units that a complete graph does not need; `job` is the one `build_graph` returned."""
    keys = [
        job.key(step.name, index)
        for step in _choose_steps(job)
        if not step.keep
        for index in range(step.count_units(job))
    ]
    delete_units(job.folder, keys)


def other_unit_keys(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys of the units that are kept beside those a manifest lists, such as the centroids."""
    for step in STEPS:
        if step.keep and step.name != "neighbors":
            for index in range(1 if step.count_units is once else len(manifest["units"])):
                yield step_key(step.name, index, manifest["params"], manifest["inputs"]["embed"])


def _choose_steps(job: Job) -> tuple[Step, ...]:
    """Return the steps for a pool of this size."""
    params, n_rows = job.params, len(job.spans)
    if not params.n_neighbors:
        return WITHOUT_EDGES
    if params.drop_score is not None:
        n_rows -= math.floor(n_rows * Fraction(repr(float(params.drop_fraction))))
    in_lists = wants_lists(n_rows, params.target_recall, params.nprobe)
    return SHARDED if in_lists and n_rows >= job.layout.whole_below else IN_MEMORY


def _run_step(
    step: Step, label: str, job: Job, executor: Executor, whole_machine: Resources, one_core: Resources
) -> list[Receipt]:
    resources, threads = one_core, job.layout.threads
    if step.whole_machine:
        resources, threads = whole_machine, max(threads, int(whole_machine.num_cpus))
    if not step.uses_gpu:
        resources = replace(resources, num_gpus=0)
    units = [StepUnit(job.key(step.name, index), index) for index in range(step.count_units(job))]
    worker = partial(StepWorker, replace(job, layout=replace(job.layout, threads=threads)), step.run)
    return run_units(Work(label, job.folder, units, worker, resources), executor)
