"""The methods of `select.method` other than d2: each fills the selection score in d2's place.

A `SampleMethod` scores each sample by itself and runs on any number of partitions. A `PoolMethod`
orders the complete pool in the memory of one worker, so its size is limited; its pick order becomes
a falling score from 1 to 1/N. Every method writes the same table (schemas.RANKS), so budgets, groups
and reports work for all of them. No sample has a suppressor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune.baselines import by_diversity, by_score
from d2prune.d2.fixed_point import FRACTION_BITS
from d2prune.errors import UserError
from d2prune.knn.csr import Graph

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class SampleView:
    """What a `SampleMethod` may use: N samples of one partition.

    Attributes:
        read_score: returns the scores with their offset, not clamped at 0, int64 [N], fixed point.
        forward_score: int64 [N], fixed point.
        position: int64 [N], canonical positions.
        seed: of random choices.
    """

    read_score: Callable[[], Int64]
    forward_score: Int64
    position: Int64
    seed: int


@dataclass(frozen=True)
class PoolView:
    """What a `PoolMethod` may use: the P samples that the cut-off left, of N.

    Attributes:
        difficulty: float64 [P].
        graph: over all N samples.
        position: int64 [P], canonical positions of the P samples.
        read_features: returns their feature rows, float32 [P, D].
        seed: of random choices.
    """

    difficulty: NDArray[np.float64]
    graph: Graph
    position: Int64
    read_features: Callable[[], NDArray[np.float32]]
    seed: int


@dataclass(frozen=True)
class SampleMethod:
    """A method that scores each sample by itself.

    Attributes:
        name: as in `select.method`.
        score: returns the selection scores, int64 [N] in units of 2**-40.
    """

    name: str
    score: Callable[[SampleView], Int64]


@dataclass(frozen=True)
class PoolMethod:
    """A method that orders the complete pool.

    Attributes:
        name: as in `select.method`.
        max_samples: most samples that one worker can hold.
        order: returns the pick order, a permutation of 0 .. P-1.
    """

    name: str
    max_samples: int
    order: Callable[[PoolView], Int64]

    def check_size(self, n: int) -> None:
        """Check the size of the pool.

        Raises:
            UserError: the pool is too large for one worker.
        """
        if n > self.max_samples:
            unlimited = ", ".join(method.name for method in METHODS if isinstance(method, SampleMethod))
            raise UserError(
                f"select.method {self.name} holds the whole pool in one worker: the pool has {n:,} samples, "
                f"expected at most {self.max_samples:,}; d2, {unlimited} have no limit"
            )

    def score(self, view: PoolView) -> Int64:
        """Return the selection scores of P samples, int64 [P]: P down to 1, over P, by pick order.

        Raises:
            UserError: the method rejects the pool.
        """
        order = self.order(view)
        n = len(order)
        score_P = np.empty(n, np.int64)
        score_P[order] = divide_to_fixed(n - np.arange(n), n)
        return score_P


def find_method(name: str) -> SampleMethod | PoolMethod:
    """Return the method of a name; d2 is not among them."""
    return next(method for method in METHODS if method.name == name)


def random_scores(seed: int, positions_N: Int64) -> Int64:
    """Return a pseudo-random score for each canonical position, int64 [N] from 0 to 2**40 - 1.

    It depends on position and seed alone, so it is the same on any number of partitions: the
    finaliser of splitmix64 (Steele, Lea, Flood, OOPSLA 2014).
    """
    with np.errstate(over="ignore"):
        z = positions_N.astype(np.uint64) + np.uint64(1) + np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(64 - FRACTION_BITS)).astype(np.int64)


def divide_to_fixed(numerator: Int64, n: int) -> Int64:
    """Return floor(numerator / n) in units of 2**-40, in two steps of 20 bits to avoid overflow."""
    upper, rest = np.divmod(numerator << 20, np.int64(n))
    return (upper << 20) + (rest << 20) // np.int64(n)


def _facility_location(view: PoolView) -> Int64:
    # Samples that were cut off have no edges: leaving them out does not reorder the others.
    index_N = np.full(view.graph.n_nodes, -1)
    index_N[view.position] = np.arange(len(view.position))
    order = index_N[by_diversity.facility_location(view.graph)]
    return order[order >= 0]


def _semdedup(view: PoolView) -> Int64:
    rows_PD = view.read_features()
    n_clusters = max(1, round(len(rows_PD) ** 0.5))
    return by_diversity.semdedup(rows_PD, n_clusters, view.difficulty, view.seed)[0]


METHODS: tuple[SampleMethod | PoolMethod, ...] = (
    SampleMethod("forward", lambda view: view.forward_score),
    SampleMethod("score", lambda view: view.read_score()),
    SampleMethod("random", lambda view: random_scores(view.seed, view.position)),
    # Holds the scores alone.
    PoolMethod("ccs", 100_000_000, lambda view: by_score.ccs(view.difficulty, seed=view.seed)),
    # Holds a priority queue.
    PoolMethod("facility_location", 5_000_000, _facility_location),
    # Compare all pairs: 5e9 at 100,000 samples.
    PoolMethod("herding", 100_000, lambda view: by_diversity.herding(view.read_features())),
    PoolMethod("k_center", 100_000, lambda view: by_diversity.k_center(view.read_features(), seed=view.seed)),
    # Hold the features: 4 GiB at 512 dimensions.
    PoolMethod("moderate", 2_000_000, lambda view: by_score.moderate(view.read_features())),
    PoolMethod("semdedup", 2_000_000, _semdedup),
)
