"""The select stage: the ranking and the budget in, a decision on every sample out."""

from functools import partial

import numpy as np

from d2prune.config.model import RunConfig
from d2prune.inputs.pool import InputPool
from d2prune.select.params import SelectParams
from d2prune.stage.record import Built, Stage, StageRun
from d2prune.stage.units import Work
from d2prune.store import artifacts

_OUTCOMES = ("kept", "below_budget", "cut_off", "duplicates", "near_duplicates")


def _params(config: RunConfig, pool: InputPool) -> SelectParams:
    select = config.select
    min_score = select.min_score
    if min_score is not None and select.method == "score":
        # Scores are float32. Rounded alike, a score that is written as the threshold reaches it.
        min_score = float(np.float32(min_score))
    return SelectParams(select.fraction, select.size, min_score, select.groups, select.cut)


def _build(run: StageRun) -> Built:
    # Loads numba, which a run that is up to date does not need.
    from d2prune.select.thresholds import find_thresholds
    from d2prune.select.worker import SelectWorker, plan_select

    planned, rank = run.planned["select"], run.manifests["rank"]
    parts = run.parts("embed", "rank", "dedup")
    thresholds = find_thresholds(parts, planned.params, rank.counters["ranked"])
    work = Work(
        "select",
        planned.folder,
        units=plan_select(rank.units, thresholds, planned.params.groups),
        worker=partial(SelectWorker, parts, planned.folder),
        resources=run.one_core_each(),
    )
    return Built(run.run_units(work), {"budget": thresholds.budget})


def _check(run: StageRun, built: Built) -> None:
    counters = built.counters
    artifacts.balance("select", built.facts["budget"], {"kept": counters["kept"]})
    decided = {name: counters[name] for name in _OUTCOMES if name in counters}
    artifacts.balance("select", run.manifests["embed"].counters["embedded"], decided)


STAGE = Stage(name="select", inputs=("rank",), params=_params, build=_build, check=_check)
