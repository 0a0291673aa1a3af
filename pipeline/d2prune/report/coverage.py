"""Coverage and diversity of the kept samples, measured on the random sample of the pool."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune.report import formatting, metrics
from d2prune.report.page_data import Curve, FractionRow, Metric
from d2prune.report.random_sample import RandomSample

_FRACTIONS = np.arange(1, 21) / 20
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
    points = sample.points_ND[members]
    if len(members) == len(sample):
        nearest = metrics.nearest_other(queries.distances_QN, queries.rows_Q)
    else:
        drawn = np.sort(rng.permutation(len(members))[: len(queries.rows_Q)])
        nearest = metrics.nearest_other(metrics.distances(points[drawn], points), drawn)
    nearest = nearest[np.isfinite(nearest)]
    order = np.concatenate([members, np.setdiff1d(np.arange(len(sample)), members)])
    (gap,) = metrics.coverage_gaps(queries.distances_QN, queries.rows_Q, order, np.array([len(members)]))
    return (
        formatting.number(float(gap)),
        formatting.number(float(nearest.mean()) if len(nearest) else None),
        formatting.percent(metrics.near_duplicate_share(nearest)),
        formatting.number(metrics.effective_directions(points), 1),
    )


def curves(sample: RandomSample, score_name: str, queries: Queries, seed: int) -> tuple[Curve, ...]:
    """Mean score and coverage at 5%, 10%, ... of the pool: in the run's order, by score, and at random."""
    if len(sample) < 2:
        return ()
    sizes = np.maximum(np.rint(_FRACTIONS * len(sample)).astype(np.int64), 1)
    sizes, first = np.unique(sizes, return_index=True)
    score = np.nan_to_num(sample.score_N)
    orders = {
        "this run's ranking": np.argsort(~sample.rank_N, kind="stable"),
        f"highest {score_name} first": np.argsort(-score, kind="stable"),
        "random": np.random.default_rng([seed, 2]).permutation(len(sample)),
    }
    return tuple(
        Curve(
            label,
            _FRACTIONS[first],
            np.cumsum(score[order])[sizes - 1] / sizes,
            metrics.coverage_gaps(queries.distances_QN, queries.rows_Q, order.astype(np.int64), sizes),
        )
        for label, order in orders.items()
    )


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
            row == nearest,
        )
        for row in rows
    )
