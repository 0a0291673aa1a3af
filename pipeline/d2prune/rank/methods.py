"""`select.method` other than d2: what takes the place of D2's selection score in the ranks.

`forward`, `score` and `random` are a number per sample and rank on any number of partitions. The
others hold the pool in one worker and are limited in size; their pick order becomes a falling score
from 1 to 1/N. So every method fills the same table (schemas.RANKS), and what follows (budget,
groups, report) knows nothing of it. Nobody suppresses anybody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from d2prune.d2.fixed_point import FRACTION_BITS
from d2prune.errors import UserError
from d2prune.knn.csr import Graph
from d2prune.knn.features import FeatureKind
from d2prune.store import schemas

Int64 = NDArray[np.int64]

PerSample = Literal["forward", "score", "random"]
WholePool = Literal["ccs", "facility_location", "herding", "k_center", "moderate", "semdedup"]

# Samples one worker may hold. k_center and herding compare each with each: 5e9 pairs at 100,000.
# moderate and semdedup hold the features (4 GiB at width 512), facility_location a queue, ccs the
# scores alone.
_MOST = {
    "ccs": 100_000_000,
    "facility_location": 5_000_000,
    "herding": 100_000,
    "k_center": 100_000,
    "moderate": 2_000_000,
    "semdedup": 2_000_000,
}


@dataclass(frozen=True)
class PoolView:
    """What a method of the whole pool may look at: the P samples that the cut-off left.

    Attributes:
        difficulty: float64 [P].
        graph: over all N samples.
        left: int64 [P], their positions among the N.
        features: reads the float32 [P, D] rows.
        seed: for lots.
    """

    difficulty: NDArray[np.float64]
    graph: Graph
    left: Int64
    features: Callable[[], NDArray[np.float32]]
    seed: int


@dataclass(frozen=True)
class Baseline:
    """Which method, and what it needs besides difficulty and graph.

    Attributes:
        method: not d2.
        seed: of what it draws by lot.
        features: what distances are measured on, as for the graph.
        embeddings: the file of each embed part that holds them.
    """

    method: PerSample | WholePool
    seed: int
    features: FeatureKind
    embeddings: str = schemas.embeddings_file()

    @property
    def whole_pool(self) -> bool:
        """Whether it needs the pool in one memory."""
        return self.method in get_args(WholePool)

    def check_size(self, n: int) -> None:
        """Fail where the pool is too large for one worker.

        Raises:
            UserError: it is.
        """
        most = _MOST.get(self.method, n)
        if n > most:
            raise UserError(
                f"select.method {self.method} holds the whole pool in one worker: the pool has {n:,} samples, expected "
                f"at most {most:,}; d2, forward, score and random have no limit"
            )

    def per_sample(self, difficulty_N: Int64, forward_N: Int64, positions_N: Int64) -> Int64:
        """The selection score of some samples, int64 [N] in units of 2**-40.

        Args:
            difficulty_N: int64 [N], fixed point.
            forward_N: int64 [N], fixed point.
            positions_N: int64 [N], canonical.
        """
        if self.method == "random":
            return lots(self.seed, positions_N)
        return forward_N if self.method == "forward" else difficulty_N

    def of_pool(self, view: PoolView) -> Int64:
        """The selection score of the P samples of `view`, int64 [P]: N down to 1, over N, by pick order.

        Raises:
            UserError: the method refuses the pool.
        """
        order = self._order(view)
        n = len(order)
        score_P = np.empty(n, np.int64)
        score_P[order] = _fraction(n - np.arange(n), n)
        return score_P

    def _order(self, view: PoolView) -> Int64:
        # Imported here: the distributed ranking needs none of it.
        from d2prune.baselines import by_diversity, by_score

        if self.method == "ccs":
            return by_score.ccs(view.difficulty, seed=self.seed)
        if self.method == "facility_location":
            order = by_diversity.facility_location(view.graph)
            # Samples that were cut off have no edges: without them the order of the others is the same.
            place_N = np.full(view.graph.n_nodes, -1)
            place_N[view.left] = np.arange(len(view.left))
            return place_N[order][place_N[order] >= 0]
        rows_PD = view.features()
        if self.method == "k_center":
            return by_diversity.k_center(rows_PD, seed=self.seed)
        if self.method == "herding":
            return by_diversity.herding(rows_PD)
        if self.method == "moderate":
            return by_score.moderate(rows_PD)
        n_clusters = max(1, round(len(rows_PD) ** 0.5))
        return by_diversity.semdedup(rows_PD, n_clusters, view.difficulty, self.seed)[0]


def lots(seed: int, positions_N: Int64) -> Int64:
    """A lot for each canonical position, int64 [N] from 0 to 2**40 - 1, whatever the partition it lies in.

    The finaliser of splitmix64 (Steele, Lea, Flood, OOPSLA 2014) over position and seed.
    """
    with np.errstate(over="ignore"):
        z = positions_N.astype(np.uint64) + np.uint64(1) + np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(64 - FRACTION_BITS)).astype(np.int64)


def _fraction(numerator: Int64, n: int) -> Int64:
    """Floor of numerator / n in units of 2**-40, in two halves of 20 bits that cannot overflow."""
    upper, rest = np.divmod(numerator << 20, np.int64(n))
    return (upper << 20) + (rest << 20) // np.int64(n)
