"""The rank stage: difficulty scores and the graph in, one selection score per sample out."""

import dataclasses
import logging
from typing import Literal

from d2prune.config.model import RunConfig
from d2prune.d2.gamma import FORWARD_MULTIPLE, REVERSE_MULTIPLE, check_gamma
from d2prune.errors import UserError
from d2prune.inputs.pool import InputPool
from d2prune.rank.params import Baseline, BaselineParams, RankParams
from d2prune.stage.record import Built, Stage, StageRun
from d2prune.store import artifacts

log = logging.getLogger(__name__)

_MAX_ZERO = 0.05
"""Share of difficulties of 0 above which a given offset is reported."""


def _params(config: RunConfig, pool: InputPool) -> RankParams:
    params = RankParams(
        difficulty=config.score.difficulty,
        offset=config.score.offset,
        gamma_forward=check_gamma("select.gamma_forward", config.select.gamma_forward, FORWARD_MULTIPLE),
        gamma_reverse=check_gamma("select.gamma_reverse", config.select.gamma_reverse, REVERSE_MULTIPLE),
    )
    if config.select.method == "d2":
        return params
    baseline = Baseline(
        config.select.method, config.select.seed, config.graph.features, config.embeddings_file
    )
    return BaselineParams(**dataclasses.asdict(params), baseline=baseline)


def _build(run: StageRun) -> Built:
    from d2prune.rank.ranking import rank, resolve

    planned = run.planned["rank"]
    parts = run.parts("embed", "rescore", "graph", "dedup")
    resources = run.one_core_each()
    resolved = resolve(parts, planned.params, run.executor, resources)
    receipts = rank(parts, planned.folder, planned.params, resolved, run.executor, resources)
    return Built(receipts, dataclasses.asdict(resolved))


def _check(run: StageRun, built: Built) -> None:
    counts = {name: built.counters.get(name, 0) for name in ("ranked", "cut_off", "duplicates")}
    embedded = run.manifests["embed"].counters["embedded"]
    artifacts.balance("rank", embedded, counts)
    if run.config.select.method in ("score", "random") and run.config.score.offset != "auto":
        # They do not use the difficulty, which is clamped.
        return
    check_difficulty(run.config.score.offset, built.counters["difficulty_zero"], embedded)


def check_difficulty(offset: float | Literal["auto"], zero: int, samples: int) -> None:
    """Check that an offset leaves difficulties that differ; one that clamps many to 0 is a warning.

    Args:
        offset: `score.offset`.
        zero: samples whose difficulty, max(score + offset, 0), is 0.
        samples: all samples.

    Raises:
        UserError: a given offset makes every difficulty 0.
    """
    if zero == samples and offset != "auto":
        raise UserError(
            f"score.offset: found {offset:g}, which makes every difficulty, max(score + offset, 0), zero; "
            "expected a higher number, or auto"
        )
    if zero == samples > 1:
        log.warning("every score is the same, so the order of the samples decides the selection")
    elif offset != "auto" and zero / samples > _MAX_ZERO:
        log.warning(
            "score.offset = %g: %d of %d difficulties (%.1f %%) are 0, as they are max(score + offset, 0); "
            "D2 cannot tell these samples apart",
            offset,
            zero,
            samples,
            100 * zero / samples,
        )


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
