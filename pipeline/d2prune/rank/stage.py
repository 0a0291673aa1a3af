"""The rank stage: difficulty scores and the graph in, one selection score per sample out."""

import dataclasses

from d2prune.config.model import RunConfig
from d2prune.inputs.pool import InputPool
from d2prune.rank.member import BaselineParams, RankParams, rank, resolve_offset
from d2prune.rank.methods import Baseline
from d2prune.rank.pool import Pool
from d2prune.stage.record import Built, Stage, StageRun
from d2prune.store import artifacts


def _params(config: RunConfig, pool: InputPool) -> RankParams:
    params = RankParams(
        difficulty=config.score.difficulty,
        offset=config.score.offset,
        gamma_forward=config.select.gamma_forward,
        gamma_reverse=config.select.gamma_reverse,
    )
    if config.select.method == "d2":
        return params
    baseline = Baseline(
        config.select.method, config.select.seed, config.graph.features, config.embeddings_file
    )
    return BaselineParams(**dataclasses.asdict(params), baseline=baseline)


def _build(run: StageRun) -> Built:
    planned, embed, graph = run.planned["rank"], run.manifests["embed"], run.manifests["graph"]
    pool = Pool(
        run.planned["embed"].folder, embed.units, run.planned["graph"].folder, graph.units, planned.folder
    )
    offset = resolve_offset(pool, planned.params)
    receipts = rank(pool, planned.params, offset, run.executor, run.one_core_each())
    return Built(receipts, {"offset": offset})


def _check(run: StageRun, built: Built) -> None:
    books = {name: built.counters[name] for name in ("ranked", "cut_off")}
    artifacts.balance("rank", run.manifests["embed"].counters["embedded"], books)


STAGE = Stage(name="rank", inputs=("graph",), params=_params, build=_build, check=_check)
