"""The rescore stage: embeddings of the pool in, scores that compare each pair with the pool out.

What reads matrices is imported when it is called: it loads numba.
"""

from functools import partial

from d2prune.config.model import RunConfig
from d2prune.errors import UserError
from d2prune.execution import Resources
from d2prune.extras import require
from d2prune.inputs.pool import InputPool
from d2prune.parts.reader import Parts
from d2prune.rescore.params import RescoreParams
from d2prune.stage.record import Built, Stage, StageRun
from d2prune.stage.units import Work, delete_units
from d2prune.store import artifacts


def _params(config: RunConfig, pool: InputPool) -> RescoreParams:
    from d2prune.rescore.target import CENTROIDS, TARGET, hash_matrix
    from d2prune.scores.pairs import check_parameters

    require("torch", f"score: {', '.join(config.pair_scores)}")
    score = config.score
    check_parameters(score.temperature, score.reference_size, score.references)
    return RescoreParams(
        config.pair_scores,
        config.embeddings_file,
        score.reference_size,
        score.references,
        score.temperature,
        score.seed,
        hash_matrix(score.target, TARGET),
        hash_matrix(score.centroids, CENTROIDS),
    )


def _build(run: StageRun) -> Built:
    from d2prune.rescore.job import RescoreJob
    from d2prune.rescore.worker import PartUnit, RowsWorker, ScoreWorker

    planned, embed, num_gpus = run.planned["rescore"], run.manifests["embed"], run.config.ray.num_gpus
    parts = run.parts("embed")
    _check_sides(parts, planned.params)
    score = run.config.score
    job = RescoreJob(parts, embed.fingerprint, planned.folder, planned.params, score.target, score.centroids)
    numbers = range(parts.spans.n_parts)
    rows_keys = [job.rows_key(part) for part in numbers] if planned.params.needs_references else []
    rows = Work(
        "rescore: references",
        planned.folder,
        [PartUnit(key, part) for part, key in enumerate(rows_keys)],
        partial(RowsWorker, job),
        run.one_core_each(),
    )
    if rows_keys:
        run.run_units(rows)
    scores = Work(
        "rescore",
        planned.folder,
        [PartUnit(job.scores_key(part), part) for part in numbers],
        partial(ScoreWorker, job, "cuda" if num_gpus else "cpu"),
        Resources(run.one_core_each().workers, 1, num_gpus),
    )
    return Built(run.run_units(scores), when_committed=lambda: delete_units(planned.folder, rows_keys))


def _check_sides(parts: Parts, params: RescoreParams) -> None:
    """Refuse s_clip_loss for a pool without text embeddings, or without image embeddings."""
    found = parts.vector_sides(params.embeddings)
    missing = [side for side in params.sides.split("+") if f"{side}_emb" not in found]
    if missing:
        raise UserError(
            f"score.difficulty: {', '.join(params.scores)}: found no {missing[0]} embeddings in the pool; "
            f"expected {params.sides}"
        )


def _check(run: StageRun, built: Built) -> None:
    scored = {"scored": built.counters["scored"]}
    artifacts.balance("rescore", run.manifests["embed"].counters["embedded"], scored)


STAGE = Stage(
    name="rescore",
    inputs=("embed",),
    params=_params,
    build=_build,
    check=_check,
    applies=lambda config: bool(config.pair_scores),
)
