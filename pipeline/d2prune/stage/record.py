"""The record that describes a stage: its inputs and parameters, how to build and check it.

The driver loops over these records and knows no stage by name. Each stage's package defines one
record, `STAGE`, in its `stage.py`; `runs/stages.py` lists them in order.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from d2prune import store
from d2prune.config.model import RunConfig
from d2prune.execution import Executor, Guarded, InProcess, Resources
from d2prune.inputs.pool import InputPool
from d2prune.parts.reader import Parts
from d2prune.stage.earlier import EarlierRun
from d2prune.stage.planned import Planned
from d2prune.stage.units import Work, run_units
from d2prune.store import artifacts
from d2prune.store.artifacts import Manifest, Receipt
from d2prune.store.completeness import find_damaged_units
from d2prune.store.records import Receipts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Built:
    """The result of building a stage, before its manifest is written.

    Attributes:
        receipts: one per unit, in canonical order.
        facts: JSON values to record in the manifest.
        when_committed: called after the manifest is written, to delete intermediate files.
    """

    receipts: Sequence[Receipt]
    facts: Mapping[str, Any] = field(default_factory=dict)
    when_committed: Callable[[], None] = lambda: None

    @property
    def counters(self) -> Mapping[str, int]:
        """Sums of the units' counters."""
        return artifacts.sum_counters(self.receipts)


@dataclass
class StageRun:
    """The state of a run, as its stages see it.

    Attributes:
        config: the configuration; `output` has no placeholders.
        pool: the input.
        planned: stage -> its planned artifact.
        guard: raises if this run lost its lease and must not write.
        open_executor: opens the executor, at the first unit: a run that is up to date opens none.
        manifests: stage -> its artifact, for the stages reached so far.
        seconds: stage -> seconds spent building it; stages that were already complete are left out.
        may_move: whether a stage may run in this process although Ray is configured.
        here: whether the current stage does.
        find_earlier: returns the run that this one continues; known once the output is complete.
    """

    config: RunConfig
    pool: InputPool
    planned: Mapping[str, Planned]
    guard: Callable[[], None]
    open_executor: Callable[[], Executor]
    manifests: dict[str, Manifest] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    may_move: bool = False
    here: bool = False
    find_earlier: Callable[[], EarlierRun | None] = lambda: None

    @property
    def executor(self) -> Executor:
        """The executor that runs units, opened on first use."""
        return self._this_process if self.here else self._opened

    @property
    def is_open(self) -> bool:
        """Whether an earlier stage has opened the executor."""
        return "_opened" in vars(self)

    @cached_property
    def _opened(self) -> Executor:
        return self.open_executor()

    @cached_property
    def _this_process(self) -> Executor:
        return Guarded(InProcess(), self.guard)

    def parts(self, *stages: str) -> Parts:
        """The pool, with the units of those of the stages that this run has."""
        found = {name: self.manifests[name] for name in stages if name in self.manifests}
        return Parts.of(self.config.work_dir, found)

    def run_units(self, work: Work) -> Sequence[Receipt]:
        """Run the units that are not complete; see `units.run_units`."""
        return run_units(work, self.executor)

    def one_core_each(self) -> Resources:
        """Resources for units that need one core each."""
        workers = 1 if self.here else self.config.ray.workers
        return Resources(workers=workers or self.executor.cpus(), grows=workers is None)

    def whole_machine(self) -> Resources:
        """Resources for one unit that uses all cores of a machine."""
        return Resources(workers=1, num_cpus=self.executor.cpus_per_node())


def find_artifact(stage: "Stage", run: StageRun) -> Manifest | None:
    """Find the artifact of a stage; None if it is not complete.

    Damaged units lose their receipts, so that building the stage again rebuilds these units alone.
    """
    planned = run.planned[stage.name]
    manifest = planned.find()
    if manifest is None:
        return None
    damaged = find_damaged_units(planned.folder, manifest, stage.shared_unit_keys(vars(manifest)))
    if damaged:
        key, fault = next(iter(damaged.items()))
        log.warning(
            "%s: %d of %d units are damaged and rebuilt, such as %s: %s",
            stage.name,
            len(damaged),
            len(manifest.units),
            store.redact(artifacts.unit_url(planned.folder, key, "")),
            fault,
        )
        run.guard()
        # The units kept beside them may be what wrote the damaged ones.
        keys = [*damaged, *stage.other_unit_keys(vars(manifest))]
        store.delete([artifacts.unit_url(planned.folder, key, artifacts.RECEIPT) for key in keys])
        return None
    return manifest


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: name of the stage, and of its folder in `work_dir`.
        inputs: what its artifact is made from: names of earlier stages, or `pool`.
        more_inputs: returns further earlier stages that it reads, depending on the configuration.
        applies: whether a run with a configuration has this stage.
        params: returns what changes the result besides the inputs, as a frozen dataclass.
        build: does the work.
        check: raises `BooksError` unless samples in = samples out + samples rejected.
        find: returns the artifact's manifest if the artifact is complete, else None.
        preflight: checks before the first stage starts; raises `UserError`.
        when_complete: called once the artifact exists, whether this run built it or found it.
        location: returns the URL of the page that the stage writes for readers; None: no page.
        has_manifest: whether the stage writes an artifact with a manifest to `work_dir`.
        is_output: whether the run's output is complete after this stage.
        other_files: names of files that are kept beside the artifact's manifest.
        other_unit_keys: manifest, as a dict -> keys of units that are kept beside those it lists.
        shared_unit_keys: manifest, as a dict -> keys of units that the artifact needs and that other
            artifacts may have written or use; pruning keeps them, and damage of this artifact's own units
            leaves them alone.
        add_inputs: returns the planned artifact with the inputs that depend on what the work_dir holds;
            gets the earlier stages' artifacts.
    """

    name: str
    inputs: tuple[str, ...]
    params: Callable[[RunConfig, InputPool], Any]
    build: Callable[[StageRun], Built]
    check: Callable[[StageRun, Built], None]
    more_inputs: Callable[[RunConfig], tuple[str, ...]] = lambda config: ()
    applies: Callable[[RunConfig], bool] = lambda config: True
    find: Callable[["Stage", StageRun], Manifest | None] = find_artifact
    preflight: Callable[[RunConfig, InputPool, Planned], None] = lambda config, pool, planned: None
    when_complete: Callable[[StageRun], None] = lambda run: None
    location: Callable[[StageRun], str] | None = None
    has_manifest: bool = True
    is_output: bool = False
    other_files: tuple[str, ...] = ()
    other_unit_keys: Callable[[Mapping[str, Any]], Iterable[str]] = lambda manifest: ()
    shared_unit_keys: Callable[[Mapping[str, Any]], Iterable[str]] = lambda manifest: ()
    add_inputs: Callable[[RunConfig, InputPool, Planned, Mapping[str, Planned]], Planned] = (
        lambda config, pool, planned, earlier: planned
    )

    def make(self, run: StageRun) -> Manifest:
        """Build the artifact, check its sample counts and write its manifest.

        Raises:
            BooksError: the sample counts do not balance; no manifest is written.
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
            units=Receipts(built.receipts),
            counters=built.counters,
            facts=dict(built.facts),
        )
        run.guard()
        if self.has_manifest:
            artifacts.commit_manifest(planned.folder, manifest)
        built.when_committed()
        return manifest
