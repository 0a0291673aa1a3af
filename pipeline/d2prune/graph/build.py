"""Builds the graph: picks the steps for the size of the pool, runs them, and checks the result.

Reads the embeddings of the embed artifact; writes `neighbors.parquet` (schemas.NEIGHBORS), one unit
per input shard, row-aligned with its part. One worker builds small pools and exact graphs in
memory; the steps of `steps.sequence` build all others, with the same bytes. Invariant: the graph
depends on the embeddings and the parameters only, never on workers or layout.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import chain, groupby
from typing import Any

import numpy as np

from d2prune.execution import Executor, Resources
from d2prune.graph.cut_off import find_cut_off
from d2prune.graph.increment.sequence import ALL_STEPS, INCREMENT, choose_shares
from d2prune.graph.params import GraphParams, Layout, choose_buckets
from d2prune.graph.previous import Previous, find_previous, unit_inputs
from d2prune.graph.route import find_why_full, find_why_too_many, find_why_unused
from d2prune.graph.steps.edges import check_symmetry
from d2prune.graph.steps.job import Job
from d2prune.graph.steps.quantise import RecallMissedError
from d2prune.graph.steps.sequence import GIVEN, IN_MEMORY, SHARDED, WITHOUT_EDGES
from d2prune.graph.steps.step import Step, StepUnit, StepWorker, once, step_key
from d2prune.graph.trained import read_facts
from d2prune.knn.in_memory import wants_lists
from d2prune.parts.reader import Parts
from d2prune.stage.units import Work, delete_units, run_units
from d2prune.store.artifacts import Receipt
from d2prune.store.completeness import find_complete_units
from d2prune.store.records import Receipts

log = logging.getLogger(__name__)


def plan_job(
    pool: Parts,
    inputs: Mapping[str, str],
    folder: str,
    params: GraphParams,
    layout: Layout,
) -> Job:
    """Describe the graph to build.

    Args:
        pool: the pool, with the units of embed and those that `drop_score` is read from.
        inputs: fingerprints of the embed artifact, `embed`, and of the quantiser if one is given,
            `quantiser`.
        folder: `work_dir/graph`.
        params: of the stage.
        layout: how to divide the work.

    Raises:
        UserError: the pool has no score named `drop_score`.
    """
    job = Job(ALL_STEPS, pool, inputs, folder, params, layout)
    cut_off = None
    if params.drop_score is not None:
        cut_off = find_cut_off(pool, params.drop_score, params.drop_fraction)
    return replace(job, cut_off=cut_off, buckets=layout.buckets or choose_buckets(len(job.spans)))


def build_graph(
    job: Job,
    executor: Executor,
    whole_machine: Resources,
    one_core: Resources,
    previous: str | None = None,
) -> tuple[Job, Sequence[Receipt]]:
    """Run the steps that are not complete, and check the graph.

    With a given quantiser, the graph is that of this quantiser, unless the pool or the recall asks
    for another one. The route to it leaves no trace in its units.

    Args:
        job: from `plan_job`.
        executor: runs the units.
        whole_machine: resources of a step whose one unit gets a complete machine.
        one_core: resources of a worker of the other steps.
        previous: fingerprint of the graph to start from, if what it needs is there.

    Returns:
        The job with everything its steps found out, and one receipt per part, in canonical order.

    Raises:
        UserError: an embedding is zero or not finite, or the target recall was missed.
        BooksError: the graph is not symmetric.
    """
    if job.given is not None:
        unused = _find_why_unused(job)
        if unused is None:
            try:
                return _run_steps(_find_start(job, previous), executor, whole_machine, one_core)
            except RecallMissedError as missed:
                unused = str(missed)
                job = replace(job, abandoned=missed.job)
        log.warning("graph: quantiser %s is not used: %s", job.given, unused)
        inputs = {name: value for name, value in job.inputs.items() if name != "quantiser"}
        job = replace(job, inputs=inputs, unused=unused)
    job, receipts = _run_steps(job, executor, whole_machine, one_core)
    if job.trained is not None:
        log.info("graph: trained quantiser %s, whose lists later runs search, too", job.trained)
    return job, receipts


def _find_why_unused(job: Job) -> str | None:
    """Return why the given quantiser must not be used for this pool; None if it can be."""
    folder, given = job.folder, job.given
    assert given is not None
    return find_why_unused(_count_rows(job), lambda: read_facts(folder, given)["rows"], job.params)


def _find_start(job: Job, previous: str | None) -> Job:
    """Return the job with the graph that it can start from, and log how it is built."""
    assert job.given is not None
    why_full = find_why_full(_count_rows(job), job.layout.whole_below, job.params)
    found: Previous | str = why_full or "there is no earlier graph with it"
    if why_full is None and previous is not None:
        work_dir = job.folder.rpartition("/")[0]
        found = find_previous(work_dir, previous, job.given, job.parts, job.params.embeddings)
    if isinstance(found, Previous):
        rows = np.diff(job.starts)[found.added].sum()
        too_many = find_why_too_many(rows, len(job.spans))
        if too_many is None:
            log.info(
                "graph: from graph %s: %d of %d parts are new, with %d of %d rows",
                *(found.fingerprint, len(found.added), len(job.parts), rows, len(job.spans)),
            )
            return choose_shares(replace(job, previous=found))
        found = too_many
    log.info("graph: built in full with quantiser %s: %s", job.given, found)
    return job


def _run_steps(
    job: Job, executor: Executor, whole_machine: Resources, one_core: Resources
) -> tuple[Job, Sequence[Receipt]]:
    steps = _choose_steps(job)

    def run(step: Step, indices: range) -> Sequence[Receipt]:
        label = f"graph: {step.name}" if len(steps) > 1 else "graph"
        return _run_step(step, indices, label, job, executor, whole_machine, one_core)

    receipts: Sequence[Receipt] = []
    for in_waves, group in groupby(steps, lambda step: step.find_wave is not None):
        if in_waves:
            _run_waves(job, list(group), run)
            continue
        for step in group:
            receipts = run(step, range(step.count_units(job)))
            job = step.after(job, receipts)
    if steps in (IN_MEMORY, INCREMENT):
        # Their units have committed the units of all parts.
        receipts = Receipts(job.receipt("neighbors", part) for part in range(len(job.parts)))
    check_symmetry(receipts)
    return job, receipts


def _run_waves(job: Job, steps: list[Step], run: Callable[[Step, range], Sequence[Receipt]]) -> None:
    """Run steps wave by wave, so that only one wave's rows are in transit."""
    for wave in range(job.waves):
        keys = [[job.key(step.name, index) for index in _find_wave(step, job, wave)] for step in steps]
        if len(find_complete_units(job.folder, keys[-1])) == len(keys[-1]):
            continue
        for step in steps:
            run(step, _find_wave(step, job, wave))
        delete_units(job.folder, chain.from_iterable(keys[:-1]))


def _find_wave(step: Step, job: Job, wave: int) -> range:
    assert step.find_wave is not None
    return step.find_wave(job, wave)


def delete_intermediate_units(job: Job) -> None:
    """Delete the units that a complete graph does not need; `job` is the one `build_graph` returned."""
    keys = list(_intermediate_keys(job))
    if job.abandoned is not None:
        keys += _intermediate_keys(job.abandoned)
        keys += _kept_keys(job.params, job.abandoned.inputs, len(job.parts))
    delete_units(job.folder, keys)


def _intermediate_keys(job: Job) -> Iterator[str]:
    for step in _choose_steps(job):
        if not step.keep:
            yield from (job.key(step.name, index) for index in range(step.count_units(job)))


def other_unit_keys(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys of the units that are kept beside those a manifest lists, such as the lists."""
    return _kept_keys(manifest["params"], unit_inputs(manifest), len(manifest["units"]))


def _kept_keys(params: Any, inputs: Mapping[str, str], n_parts: int) -> Iterator[str]:
    for step in ALL_STEPS:
        if step.keep and step.name != "neighbors":
            for index in range(1 if step.count_units is once else n_parts):
                yield step_key(step.name, index, params, inputs)


def _count_rows(job: Job) -> int:
    """Count the rows that the cut-off leaves."""
    params, n_rows = job.params, len(job.spans)
    if params.drop_score is not None:
        n_rows -= math.floor(n_rows * Fraction(repr(float(params.drop_fraction))))
    return n_rows


def _choose_steps(job: Job) -> tuple[Step, ...]:
    """Return the steps for a pool of this size."""
    params, n_rows = job.params, _count_rows(job)
    if not params.n_neighbors:
        return WITHOUT_EDGES
    in_lists = wants_lists(n_rows, params.target_recall, params.nprobe)
    if not in_lists or n_rows < job.layout.whole_below:
        return IN_MEMORY
    if job.previous is not None:
        return INCREMENT
    return SHARDED if job.given is None else GIVEN


def _run_step(
    step: Step,
    indices: range,
    label: str,
    job: Job,
    executor: Executor,
    whole_machine: Resources,
    one_core: Resources,
) -> Sequence[Receipt]:
    resources, threads = one_core, job.layout.threads
    if step.whole_machine:
        resources, threads = whole_machine, max(threads, int(whole_machine.num_cpus))
    if not step.uses_gpu:
        resources = replace(resources, num_gpus=0)
    units = [StepUnit(job.key(step.name, index), index) for index in indices]
    worker = partial(StepWorker, replace(job, layout=replace(job.layout, threads=threads)), step.run)
    return run_units(Work(label, job.folder, units, worker, resources), executor)
