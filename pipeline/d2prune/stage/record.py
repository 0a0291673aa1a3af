"""What a stage is: a record that names its parameters, how it is built and which counts must balance.

The driver loops over such records and knows no stage by name. A stage's package holds one record,
`STAGE`, in its `stage.py`; `runs/stages.py` lists them in order.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from d2prune.config.model import RunConfig
from d2prune.execution import Executor, Resources
from d2prune.inputs.pool import InputPool
from d2prune.stage.planned import Planned
from d2prune.stage.units import Work, run_units
from d2prune.store import artifacts
from d2prune.store.artifacts import Manifest, Receipt


@dataclass(frozen=True)
class Built:
    """What a stage built, before its manifest is written.

    Attributes:
        receipts: one per unit, in canonical order.
        facts: what to record about the whole artifact; JSON values.
        when_committed: called once the manifest is written; may delete intermediate files.
    """

    receipts: Sequence[Receipt]
    facts: Mapping[str, Any] = field(default_factory=dict)
    when_committed: Callable[[], None] = lambda: None

    @property
    def counters(self) -> Mapping[str, int]:
        """Counters of all units, summed."""
        return artifacts.sum_counters(self.receipts)


@dataclass
class StageRun:
    """A run as its stages see it.

    Attributes:
        config: the run; `output` is complete, without placeholders.
        pool: the input.
        planned: stage -> its artifact, all known when the run starts.
        guard: raises if this run may no longer write.
        open_executor: opens the executor at the first unit, so that a run that is already complete starts none.
        manifests: stage -> artifact, of the stages that are complete.
        seconds: stage -> time spent; a stage that was already complete is not listed.
    """

    config: RunConfig
    pool: InputPool
    planned: Mapping[str, Planned]
    guard: Callable[[], None]
    open_executor: Callable[[], Executor]
    manifests: dict[str, Manifest] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @cached_property
    def executor(self) -> Executor:
        """Where units run."""
        return self.open_executor()

    def run_units(self, work: Work) -> list[Receipt]:
        """See `units.run_units`."""
        return run_units(work, self.executor)

    def one_core_each(self) -> Resources:
        """Of a stage whose units need one core each."""
        workers = self.config.ray.workers
        return Resources(workers=workers or self.executor.cpus(), grows=workers is None)

    def whole_machine(self) -> Resources:
        """Of a unit that uses all cores of one machine."""
        return Resources(workers=1, num_cpus=self.executor.cpus_per_node())


def _find_artifact(stage: "Stage", run: StageRun) -> Manifest | None:
    return run.planned[stage.name].find()


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: also that of its folder in `work_dir`.
        inputs: names of what its artifact is made from: earlier stages, or `pool`.
        params: everything besides the inputs that changes the result, as a frozen dataclass.
        build: does the work.
        check: raises `BooksError` unless samples in = samples out + rejected.
        find: the artifact if it is complete, else None.
        preflight: checks before any stage starts; raises what the user must fix.
        when_complete: called when the artifact exists, whether this run built it or found it.
        location: URL of what the stage produces for people, outside its artifact; None: nothing.
        has_manifest: whether the result is an artifact in `work_dir` with a manifest.
        is_output: whether the run's output is complete after this stage.
        other_unit_keys: manifest, as a dict -> keys of units that are kept beside those it lists.
    """

    name: str
    inputs: tuple[str, ...]
    params: Callable[[RunConfig, InputPool], Any]
    build: Callable[[StageRun], Built]
    check: Callable[[StageRun, Built], None]
    find: Callable[["Stage", StageRun], Manifest | None] = _find_artifact
    preflight: Callable[[RunConfig, Planned], None] = lambda config, planned: None
    when_complete: Callable[[StageRun], None] = lambda run: None
    location: Callable[[StageRun], str] | None = None
    has_manifest: bool = True
    is_output: bool = False
    other_unit_keys: Callable[[Mapping[str, Any]], Iterable[str]] = lambda manifest: ()

    def make(self, run: StageRun) -> Manifest:
        """Build the stage, balance its sample counts and write its manifest.

        Raises:
            BooksError: the counts do not balance; no manifest is written.
        """
        planned = run.planned[self.name]
        if self.has_manifest:
            planned.log_changed_params()
        built = self.build(run)
        self.check(run, built)
        manifest = Manifest(
            stage=self.name,
            fingerprint=planned.fingerprint,
            params=dataclasses.asdict(planned.params),
            inputs=dict(planned.inputs),
            units=tuple(built.receipts),
            counters=built.counters,
            facts=dict(built.facts),
        )
        run.guard()
        if self.has_manifest:
            artifacts.commit_manifest(planned.folder, manifest)
        built.when_committed()
        return manifest
