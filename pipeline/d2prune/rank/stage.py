"""The rank stage: difficulty scores and the graph in, one selection score per sample out."""

import dataclasses

from d2prune.config.model import RunConfig
from d2prune.d2.gamma import check_gamma
from d2prune.inputs.pool import InputPool
from d2prune.rank.params import Baseline, BaselineParams, RankParams
from d2prune.rank.ranking import rank, resolve
from d2prune.stage.record import Built, Stage, StageRun
from d2prune.store import artifacts


def _params(config: RunConfig, pool: InputPool) -> RankParams:
    params = RankParams(
        difficulty=config.score.difficulty,
        offset=config.score.offset,
        gamma_forward=check_gamma("select.gamma_forward", config.select.gamma_forward),
        gamma_reverse=check_gamma("select.gamma_reverse", config.select.gamma_reverse),
    )
    if config.select.method == "d2":
        return params
    baseline = Baseline(
        config.select.method, config.select.seed, config.graph.features, config.embeddings_file
    )
    return BaselineParams(**dataclasses.asdict(params), baseline=baseline)


def _build(run: StageRun) -> Built:
    planned = run.planned["rank"]
    parts = run.parts("embed", "rescore", "graph", "dedup")
    resources = run.one_core_each()
    resolved = resolve(parts, planned.params, run.executor, resources)
    receipts = rank(parts, planned.folder, planned.params, resolved, run.executor, resources)
    return Built(receipts, dataclasses.asdict(resolved))


def _check(run: StageRun, built: Built) -> None:
    counts = {name: built.counters.get(name, 0) for name in ("ranked", "cut_off", "duplicates")}
    artifacts.balance("rank", run.manifests["embed"].counters["embedded"], counts)


def _list_more_inputs(config: RunConfig) -> tuple[str, ...]:
    rescore = ("rescore",) if config.find_pair_scores(config.score.difficulty) else ()
    return (*rescore, *(("dedup",) if config.dedup.applies else ()))


STAGE = Stage(
    name="rank",
    inputs=("graph",),
    params=_params,
    build=_build,
    check=_check,
    more_inputs=_list_more_inputs,
)
