"""Two selections side by side: how many samples both, either or none of them keep, and how good they are.

Samples are matched by position if both selections are of one pool, otherwise by uid. N samples, S in
the random sample, Q queries.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.d2.fixed_point import SCALE
from d2prune.explore.pool_map import file_is_missing
from d2prune.explore.query import Among
from d2prune.explore.workspace import Kept, OpenRun, Workspace
from d2prune.runs.finished import FinishedRun


def compare(workspace: Workspace, a: Kept, b: Kept) -> dict[str, Any]:
    """The counts of a comparison, and each side's numbers."""
    same_pool = a.opened.run.embed.fingerprint == b.opened.run.embed.fingerprint
    a_N, b_in_a_N = a.mask_N, workspace.member_mask(b, a.opened)
    b_N, a_in_b_N = b.mask_N, workspace.member_mask(a, b.opened)
    only_a_N, only_b_N = a_N & ~b_in_a_N, b_N & ~a_in_b_N
    return {
        "same_pool": same_pool,
        "both": int((a_N & b_in_a_N).sum()),
        "neither": int((~(a_N | b_in_a_N)).sum()) if same_pool else None,
        "a": {**_summary(a), "only": int(only_a_N.sum()), "elsewhere": _reasons(b, only_a_N, same_pool)},
        "b": {**_summary(b), "only": int(only_b_N.sum()), "elsewhere": _reasons(a, only_b_N, same_pool)},
        "mean_only_a": a.opened.index.mean_score(only_a_N),
        "mean_only_b": b.opened.index.mean_score(only_b_N),
    }


def members(workspace: Workspace, a: Kept, b: Kept, among: Among, pool: OpenRun) -> NDArray[np.bool_]:
    """Which samples of a run's pool are in a set of the comparison, bool [N]."""
    a_N, b_N = workspace.member_mask(a, pool), workspace.member_mask(b, pool)
    if among == "only-a":
        return a_N & ~b_N
    if among == "only-b":
        return b_N & ~a_N
    return a_N & b_N if among == "both" else ~(a_N | b_N)


def _summary(kept: Kept) -> dict[str, Any]:
    index, mask_N = kept.opened.index, kept.mask_N
    fixed_N = index.ranking.fixed_N[mask_N]
    return {
        "spec": kept.spec,
        "run": kept.opened.name,
        "fraction": len(fixed_N) / len(index) if len(index) else 0.0,
        "samples": len(index),
        "kept": len(fixed_N),
        "score_name": kept.opened.run.score_name,
        "mean_score": index.mean_score(mask_N),
        "threshold": float(fixed_N.min()) / SCALE if len(fixed_N) else None,
    }


def _reasons(other: Kept, only_N: NDArray[np.bool_], same_pool: bool) -> dict[str, int]:
    """Why the other run drops what one side alone keeps: samples by reason; empty if not known."""
    if not same_pool or other.fraction is not None:
        return {}
    return other.opened.index.counts(only_N)


@dataclass(frozen=True)
class CoverageSample:
    """A random sample of a pool, on which coverage gaps are measured.

    Attributes:
        positions_S: int64, canonical.
        queries_Q: int64, the rows of the sample whose nearest kept samples are looked up.
        distances_QS: float32.
    """

    positions_S: NDArray[np.int64]
    queries_Q: NDArray[np.int64]
    distances_QS: NDArray[np.float32]

    def gap(self, kept_N: NDArray[np.bool_]) -> float | None:
        """Mean distance of the queries to the nearest kept sample; None if no sampled one is kept."""
        from d2prune.report import metrics

        kept_S = kept_N[self.positions_S]
        order_S = np.concatenate([np.flatnonzero(kept_S), np.flatnonzero(~kept_S)])
        if not kept_S.any():
            return None
        size_1 = np.array([int(kept_S.sum())])
        return float(metrics.coverage_gaps(self.distances_QS, self.queries_Q, order_S, size_1)[0])


def read_coverage_sample(run: FinishedRun) -> CoverageSample | None:
    """Read the report's random sample; None if the pool has no embeddings."""
    # Imports torch, which takes seconds that the first page would wait for.
    from d2prune.knn.features import features
    from d2prune.report import metrics
    from d2prune.report.random_sample import draw_positions
    from d2prune.report.record import ReportParams

    table = run.embeddings_file
    if not len(run) or any(file_is_missing(run, unit) for unit in range(len(run.embed.units))):
        return None
    params = ReportParams()
    positions_S = draw_positions(run.parts.spans, params.sample_rows, params.sample_groups, params.seed)
    points_SD = features(run.features, *run.parts.take_vectors(positions_S, table))
    queries_Q = np.random.default_rng(params.seed).permutation(len(points_SD))[: params.queries]
    queries_Q = np.sort(queries_Q)
    return CoverageSample(positions_S, queries_Q, metrics.distances(points_SD[queries_Q], points_SD))
