"""The record of one step, and the worker that runs its units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from d2prune.store import artifacts
from d2prune.store.artifacts import Receipt

if TYPE_CHECKING:
    from d2prune.graph.steps.job import Job


def once(job: Job) -> int:
    """Count one unit."""
    return 1


def per_part(job: Job) -> int:
    """Count one unit per embed part."""
    return len(job.parts)


def unchanged(job: Job, receipts: Sequence[Receipt]) -> Job:
    """Return the job as it was before the step."""
    return job


@dataclass(frozen=True)
class Step:
    """One step of building a graph.

    Attributes:
        name: prefix of its unit keys.
        run: does unit `index` of the job and commits it.
        count_units: number of units; they are numbered from 0.
        layout: attributes of the job that divide the work and also change the bytes of these units,
            so that they belong in the unit keys.
        whole_machine: the unit gets a machine to itself, and all its cores; otherwise each worker
            has one core.
        uses_gpu: the units multiply matrices, so they get the GPUs that the run has.
        after: returns the job with what the complete step adds to it; raises if its result is not
            acceptable.
        keep: the units stay when the graph is complete; those of other steps are deleted.
        find_wave: returns which units belong to a wave of partitions. Steps with waves that follow one
            another run wave by wave, and after each wave the units of all but the last are deleted.
    """

    name: str
    run: Callable[[Job, int], Receipt]
    count_units: Callable[[Job], int]
    layout: tuple[str, ...] = ()
    whole_machine: bool = False
    uses_gpu: bool = False
    after: Callable[[Job, Sequence[Receipt]], Job] = unchanged
    keep: bool = False
    find_wave: Callable[[Job, int], range] | None = None


def step_key(name: str, index: int, params: Any, inputs: Mapping[str, str], layout: Any = None) -> str:
    """Return the key of unit `index` of a step.

    Args:
        name: of the step.
        index: of the unit.
        params: `GraphParams`, or the dict that a manifest holds.
        inputs: name -> fingerprint of everything that the graph is made from.
        layout: values of the attributes that `Step.layout` names: none, one, or a tuple of several.
    """
    return artifacts.unit_key(f"{name}-{index:08d}", params, dict(inputs), layout)


@dataclass(frozen=True)
class StepUnit:
    """Unit `index` of a step: a part, a bucket, a partition or a slice of one."""

    key: str
    index: int


@dataclass(frozen=True)
class StepWorker:
    """Runs the units of one step; `run` is that of its `Step`."""

    job: Job
    run: Callable[[Job, int], Receipt]

    def __call__(self, unit: StepUnit) -> Receipt:
        """Run the unit and commit it."""
        return self.run(self.job, unit.index)
