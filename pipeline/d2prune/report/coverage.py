"""Coverage and diversity of the kept samples, and what other fractions and orders would give.

Measured on the random sample of the pool; shares of near-copies on the survey, since the copies of a
sample are rarely in a random sample with it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune.knn.graph_layout import K, lay_out_graph
from d2prune.report import formatting, metrics
from d2prune.report.page_data import Curve, FractionRow, Here, Metric
from d2prune.report.random_sample import RandomSample
from d2prune.report.survey import Survey

_FRACTIONS = np.arange(1, 21) / 20
# Of 500 samples, a share of 10 % has a standard error of 1.3 points.
_FEWEST = 500
_MEASURES = (
    ("Coverage gap", "mean distance from any sample to the nearest kept one; lower is better"),
    ("Spacing", "mean distance between a sample and its nearest other sample; higher means less repetition"),
    (
        "Near-duplicates",
        f"share of samples whose nearest other sample has a cosine of {metrics.NEAR_DUPLICATE} or more",
    ),
    ("Diversity", "effective number of directions (Vendi score); higher means more varied"),
)


@dataclass(frozen=True)
class Queries:
    """The samples whose nearest neighbours are measured; computed once for all comparisons.

    Attributes:
        rows_Q: int64, ascending rows of the random sample.
        distances_QN: float32, their distances to the whole random sample.
    """

    rows_Q: NDArray[np.int64]
    distances_QN: NDArray[np.float32]


def draw_queries(sample: RandomSample, size: int, seed: int) -> Queries:
    """Draw at most `size` rows of the random sample and compute their distances to all of it."""
    rows_Q = np.sort(np.random.default_rng(seed).permutation(len(sample))[:size])
    return Queries(rows_Q, metrics.distances(sample.points_ND[rows_Q], sample.points_ND))


def lay_out(sample: RandomSample, queries: Queries, seed: int) -> NDArray[np.uint16]:
    """Where the queries are on a map, uint16 [Q, 2]; see `lay_out_graph`."""
    rows_Q, points_QD = queries.rows_Q, sample.points_ND[queries.rows_Q]
    k = min(K, max(len(rows_Q) - 1, 0))
    nearest_QK, distances_QK = metrics.nearest_queries(queries.distances_QN, rows_Q, k)
    return lay_out_graph(points_QD, nearest_QK, distances_QK**2, seed)


def compare_with_random(sample: RandomSample, queries: Queries, seed: int) -> list[Metric]:
    """Measure the pool, the kept samples and a random choice of as many; empty if nothing was kept."""
    rng = np.random.default_rng([seed, 1])
    everything = np.arange(len(sample))
    kept = np.flatnonzero(sample.kept_N)
    random = np.sort(rng.permutation(len(sample))[: len(kept)])
    if not len(kept):
        return []
    pool, kept_column, random_column = (
        _measure(sample, queries, members, rng) for members in (everything, kept, random)
    )
    return [
        Metric(name, meaning, pool[row], kept_column[row], random_column[row])
        for row, (name, meaning) in enumerate(_MEASURES)
    ]


def _measure(
    sample: RandomSample, queries: Queries, members: NDArray[np.int64], rng: np.random.Generator
) -> tuple[str, ...]:
    """The measures of some rows of the random sample, as text, in the order of `_MEASURES`."""
    points = sample.points_ND if len(members) == len(sample) else sample.points_ND[members]
    nearest = _nearest_members(sample, queries, members, rng)
    order = np.concatenate([members, np.setdiff1d(np.arange(len(sample)), members)])
    (gap,) = metrics.coverage_gaps(queries.distances_QN, queries.rows_Q, order, np.array([len(members)]))
    return (
        formatting.number(float(gap)),
        formatting.number(float(nearest.mean()) if len(nearest) else None),
        formatting.percent(metrics.near_duplicate_share(nearest)),
        formatting.number(metrics.effective_directions(points), 1),
    )


def _nearest_members(
    sample: RandomSample, queries: Queries, members: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Distances of some members to the nearest other one, without those that have none.

    Of the queries that are members, whose distances are known, unless these are few.
    """
    known = np.isin(queries.rows_Q, members)
    rows_Q = queries.rows_Q[known]
    if len(members) == len(sample):
        distances_QM = queries.distances_QN
    elif len(rows_Q) >= min(_FEWEST, len(members)):
        distances_QM = queries.distances_QN[np.ix_(known, members)]
    else:
        rows_Q = np.sort(rng.permutation(members)[:_FEWEST])
        distances_QM = metrics.distances(sample.points_ND[rows_Q], sample.points_ND[members])
    nearest_Q = metrics.nearest_other(distances_QM, np.searchsorted(members, rows_Q))
    return np.asarray(nearest_Q[np.isfinite(nearest_Q)])


def curves(
    sample: RandomSample, survey: Survey, score_name: str, queries: Queries, seed: int
) -> tuple[Curve, ...]:
    """Score, coverage and near-copies at 5%, 10%, ...: in the run's order, by score, and at random."""
    if len(sample) < 2:
        return ()
    sizes = np.maximum(np.rint(_FRACTIONS * len(sample)).astype(np.int64), 1)
    sizes, first = np.unique(sizes, return_index=True)
    score_N = np.nan_to_num(sample.score_N)
    labels = ("this run's ranking", f"highest {score_name} first", "random")
    orders = _orders(sample.rank_N, score_N, [seed, 2])
    survey_orders = _orders(survey.rank_S, np.nan_to_num(survey.score_S), [seed, 3])
    return tuple(
        Curve(
            label,
            _FRACTIONS[first],
            np.cumsum(score_N[order])[sizes - 1] / sizes,
            metrics.coverage_gaps(queries.distances_QN, queries.rows_Q, order, sizes),
            _copies(survey, survey_order, np.rint(_FRACTIONS[first] * len(survey)).astype(np.int64)),
        )
        for label, order, survey_order in zip(labels, orders, survey_orders, strict=True)
    )


def _orders(
    rank_N: NDArray[np.int64], score_N: NDArray[np.float64], seed: list[int]
) -> tuple[NDArray[np.int64], ...]:
    """The run's order, that of the score, and a random one, each int64 [N]."""
    return (
        np.argsort(~rank_N, kind="stable"),
        np.argsort(-score_N, kind="stable"),
        np.random.default_rng(seed).permutation(len(rank_N)),
    )


def _copies(survey: Survey, order_S: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of the first samples of an order that have a near-copy among them; nan without a graph."""
    if not survey.has_graph:
        return np.full(len(sizes), np.nan)
    return metrics.copies_share(survey.near.from_E, survey.near.to_E, order_S, np.maximum(sizes, 1))


def measure_kept(sample: RandomSample, survey: Survey, queries: Queries) -> Here | None:
    """What the run itself keeps, in the measures of the curves; None if nothing."""
    if not sample.kept_N.any() or not survey.kept_S.any():
        return None
    order, survey_order = (np.argsort(~kept, kind="stable") for kept in (sample.kept_N, survey.kept_S))
    sizes, survey_sizes = (np.array([int(kept.sum())]) for kept in (sample.kept_N, survey.kept_S))
    (gap,) = metrics.coverage_gaps(queries.distances_QN, queries.rows_Q, order, sizes)
    (copies,) = _copies(survey, survey_order, survey_sizes)
    return Here(float(np.nanmean(sample.score_N[sample.kept_N])), float(gap), float(copies))


def fraction_rows(curves: tuple[Curve, ...], samples: int, fraction: float) -> tuple[FractionRow, ...]:
    """The first curve, that of the run's ranking, as a table.

    Args:
        curves: as returned by `curves`.
        samples: size of the pool.
        fraction: share of the pool that the run kept.
    """
    if not curves:
        return ()
    own = curves[0]
    nearest = int(np.abs(own.fraction - fraction).argmin())
    # Every other step, and the one nearest to this run.
    rows = [row for row in range(len(own.fraction)) if row % 2 or row == nearest]
    return tuple(
        FractionRow(
            formatting.percent(float(own.fraction[row]), 0),
            round(float(own.fraction[row]) * samples),
            formatting.number(float(own.mean_score[row])),
            formatting.number(float(own.coverage[row])),
            formatting.percent(float(own.copies[row])),
            row == nearest,
        )
        for row in rows
    )
