"""The driver of the rank stage: divides the parts among partitions and runs them.

A partition owns a range of consecutive parts (input shards), so that each worker reads its own parts
only. The number of partitions does not affect the result.
"""

from functools import partial

import numpy as np

from d2prune import store
from d2prune.d2.fixed_point import resolve_auto_offset
from d2prune.d2.gamma import is_relative, resolve_gamma
from d2prune.execution import Executor, Resources
from d2prune.parts.reader import Parts
from d2prune.rank.distance_scale import find_median_sq_distance
from d2prune.rank.job import RankJob
from d2prune.rank.member import SCORE_OPTION, RankMember
from d2prune.rank.methods import PoolMethod, find_method
from d2prune.rank.params import BaselineParams, RankParams, Resolved
from d2prune.rounds.group import run_to_completion
from d2prune.rounds.member import UID_EXCHANGES
from d2prune.rounds.rows import share_parts
from d2prune.scores.column import read_score
from d2prune.store.artifacts import Receipt


def resolve(parts: Parts, params: RankParams, executor: Executor, resources: Resources) -> Resolved:
    """Return the parameters that depend on the pool.

    Args:
        parts: the pool, with the units of embed and graph.
        params: of the stage.
        executor: runs the workers that read the graph.
        resources: of one worker.

    Raises:
        UserError: the score does not exist, or a value is not finite.
    """
    gammas, median = (params.gamma_forward, params.gamma_reverse), None
    if any(map(is_relative, gammas)):
        median = find_median_sq_distance(parts, executor, resources)
    return Resolved(
        _find_offset(parts, params),
        resolve_gamma(gammas[0], median),
        resolve_gamma(gammas[1], median),
        median,
    )


def _find_offset(parts: Parts, params: RankParams) -> float:
    """Return what is added to the score: `params.offset`, or what `auto` resolves to."""
    if params.offset != "auto":
        return params.offset
    numbers = range(parts.spans.n_parts)
    scores = (read_score(parts, [part], params.difficulty, SCORE_OPTION) for part in numbers)
    bounds = [(float(score_M.min()), float(score_M.max())) for score_M in scores if len(score_M)]
    return resolve_auto_offset(min(low for low, _ in bounds), max(high for _, high in bounds))


def rank(
    parts: Parts,
    folder: str,
    params: RankParams,
    resolved: Resolved,
    executor: Executor,
    resources: Resources,
) -> list[Receipt]:
    """Rank the pool on at most `resources.workers` partitions.

    Args:
        parts: the pool, with the units of embed and graph.
        folder: `work_dir/rank`.
        params: of the stage.
        resolved: from `resolve`.
        executor: runs the workers.
        resources: of one worker.

    Returns:
        One receipt per part, in canonical order.

    Raises:
        UserError: a score out of range, or a pool too large for the method.
        InfrastructureError: workers were lost too often.
    """
    workers = resources.workers
    if isinstance(params, BaselineParams):
        method = find_method(params.baseline.method)
        if isinstance(method, PoolMethod):
            method.check_size(len(parts))
            workers = 1
    bounds = share_parts(np.diff(parts.spans.starts).tolist(), workers)
    job = RankJob(parts, folder, params, resolved, tuple(bounds))
    group = executor.group(partial(RankMember, job), len(bounds) - 1, resources)
    try:
        receipts = run_to_completion(group, "commit", UID_EXCHANGES)
    finally:
        group.close()
    store.delete([file.url for file in store.list_files(job.checkpoints)])
    return [receipt for member in receipts for receipt in member]
