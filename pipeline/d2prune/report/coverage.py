"""What the choice did to the pool, measured on a sample: coverage and diversity, and both against the fraction kept."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune.report import formatting, metrics
from d2prune.report.data import Curve, FractionRow, Metric
from d2prune.report.pool_sample import Sample

_FRACTIONS = np.arange(1, 21) / 20


@dataclass(frozen=True)
class Asked:
    """The samples that ask for their nearest one, once for all comparisons.

    Attributes:
        queries_Q: int64, ascending rows of the sample.
        near_QN: float32, their distances to the whole sample.
    """

    queries_Q: NDArray[np.int64]
    near_QN: NDArray[np.float32]


def ask(sample: Sample, queries: int, seed: int) -> Asked:
    """Draw at most `queries` rows of the sample, and measure their distances."""
    drawn = np.sort(np.random.default_rng(seed).permutation(len(sample))[:queries])
    return Asked(drawn, metrics.distances(sample.points_ND[drawn], sample.points_ND))


def measures(sample: Sample, asked: Asked, seed: int) -> list[Metric]:
    """Coverage and diversity of the sample, of its kept part and of a random part of the same size."""
    rng = np.random.default_rng([seed, 1])
    everything = np.arange(len(sample))
    kept = np.flatnonzero(sample.kept_N)
    chance = np.sort(rng.permutation(len(sample))[: len(kept)])
    if not len(kept):
        return []

    def coverage(members: NDArray[np.int64]) -> str:
        order = np.concatenate([members, np.setdiff1d(everything, members)])
        near = metrics.nearest_by_fraction(asked.near_QN, asked.queries_Q, order, np.array([len(members)]))
        return formatting.number(float(near[0]))

    columns = []
    for members in (everything, kept, chance):
        points = sample.points_ND[members]
        if members is everything:
            near = metrics.nearest_other(asked.near_QN, asked.queries_Q)
        else:
            drawn = np.sort(rng.permutation(len(members))[: len(asked.queries_Q)])
            near = metrics.nearest_other(metrics.distances(points[drawn], points), drawn)
        near = near[np.isfinite(near)]
        columns.append(
            (
                coverage(members),
                formatting.number(float(near.mean()) if len(near) else None),
                formatting.percent(metrics.near_duplicate_share(near)),
                formatting.number(metrics.effective_directions(points), 1),
            )
        )
    meanings = (
        (
            "Coverage gap",
            "mean distance from any sample to the nearest kept one; lower: less of the pool is lost",
        ),
        ("Spacing", "mean distance between a sample and its nearest other one; higher: less repetition"),
        (
            "Near-duplicates",
            f"share whose nearest other sample has a cosine of {metrics.NEAR_DUPLICATE} or more",
        ),
        ("Diversity", "effective number of directions (Vendi score); higher: more varied"),
    )
    return [
        Metric(name, meaning, columns[0][row], columns[1][row], columns[2][row])
        for row, (name, meaning) in enumerate(meanings)
    ]


def curves(sample: Sample, score_name: str, asked: Asked, seed: int) -> tuple[Curve, ...]:
    """Mean difficulty and coverage at 5 %, 10 %, ..., in the order of D2, of the score alone, and at random."""
    if len(sample) < 2:
        return ()
    sizes = np.maximum(np.rint(_FRACTIONS * len(sample)).astype(np.int64), 1)
    sizes, first = np.unique(sizes, return_index=True)
    difficulty = np.nan_to_num(sample.difficulty_N)
    orders = {
        "D2 (this run's ranking)": np.argsort(~sample.rank_N, kind="stable"),
        f"highest {score_name} first": np.argsort(-difficulty, kind="stable"),
        "random": np.random.default_rng([seed, 2]).permutation(len(sample)),
    }
    return tuple(
        Curve(
            label,
            _FRACTIONS[first],
            np.cumsum(difficulty[order])[sizes - 1] / sizes,
            metrics.nearest_by_fraction(asked.near_QN, asked.queries_Q, order.astype(np.int64), sizes),
        )
        for label, order in orders.items()
    )


def fraction_rows(drawn: tuple[Curve, ...], samples: int, fraction: float) -> tuple[FractionRow, ...]:
    """The D2 curve (the first) as a table, for a pool of `samples`."""
    if not drawn:
        return ()
    d2 = drawn[0]
    nearest = int(np.abs(d2.fraction - fraction).argmin())
    # Every other step, and the one this run is nearest to.
    rows = [row for row in range(len(d2.fraction)) if row % 2 or row == nearest]
    return tuple(
        FractionRow(
            formatting.percent(float(d2.fraction[row]), 0),
            round(float(d2.fraction[row]) * samples),
            formatting.number(float(d2.mean_score[row])),
            formatting.number(float(d2.coverage[row])),
            row == nearest,
        )
        for row in rows
    )
