"""How much of an output stays from night to night with `write.stable`, and how many tars there are.

    python -m benchmarks.stable_tars --rows 20000 --nights 30

A generated pool (a mixture of clusters, sizes of samples log-normal) grows by a share each night and is
selected anew, by D2 or by score. The tars are placed as the write stage places them, and once more without
dissolving tars. Writes nothing; prints one line per kind of selection, growth and size of tars.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.d2.coreset import d2_prune
from d2prune.write.placement import match, place

Int64 = NDArray[np.int64]
Ids = NDArray[np.uint64]
FRACTION, CLUSTERS, WIDTH = 0.3, 800, 48
FIXED = {"gamma_forward": 0.1, "gamma_reverse": 0.1, "offset": 0.5}


@dataclass
class Pool:
    """A pool that grows: features [N, D], scores [N], bytes [N]."""

    rng: np.random.Generator
    centres: NDArray[np.float64]
    features: NDArray[np.float32]
    scores: NDArray[np.float32]
    sizes: NDArray[np.float64]

    @classmethod
    def make(cls, rows: int) -> "Pool":
        """Make the pool of the first night."""
        rng = np.random.default_rng(0)
        empty = np.zeros(0, np.float32)
        centres = rng.normal(size=(CLUSTERS, WIDTH))
        pool = cls(rng, centres, np.zeros((0, WIDTH), np.float32), empty, np.zeros(0))
        pool.grow(rows)
        return pool

    def grow(self, rows: int) -> None:
        """Add rows of the same distribution."""
        rng = self.rng
        cluster = rng.zipf(1.5, rows) % CLUSTERS
        noise = rng.normal(size=(rows, WIDTH)) * rng.uniform(0.2, 1.0, size=(rows, 1))
        self.features = np.concatenate([self.features, (self.centres[cluster] + noise).astype(np.float32)])
        scores = (0.25 + 0.08 * rng.normal(size=rows)).astype(np.float32)
        self.scores = np.concatenate([self.scores, scores])
        self.sizes = np.concatenate([self.sizes, rng.lognormal(9.5, 0.7, rows) + 2048])


def keep_by_d2(pool: Pool, **options: Any) -> Int64:
    """Rows that D2 keeps."""
    return np.flatnonzero(d2_prune(pool.features, pool.scores, FRACTION, **options).mask)


def keep_by_fraction(pool: Pool) -> Int64:
    """Rows with the highest scores."""
    order = np.argsort(-pool.scores, kind="stable")
    return np.sort(order[: int(FRACTION * len(order))])


def keep_by_score(pool: Pool) -> Int64:
    """Rows above a fixed score."""
    return np.flatnonzero(pool.scores >= 0.29)


def place_without_dissolving(before: Sequence[Ids], now: Ids, samples_per_shard: int) -> list[Int64]:
    """Place samples as `place` does, where each tar keeps what is left of it."""
    row_M = match(np.concatenate([np.zeros((0, 4), np.uint64), *before]), now)
    rows = [some[some >= 0] for some in np.split(row_M, np.cumsum([len(ids) for ids in before])[:-1])]
    rest = np.setdiff1d(np.arange(len(now)), row_M)
    rows += [rest[i : i + samples_per_shard] for i in range(0, len(rest), samples_per_shard)]
    return [some for some in rows if len(some)]


def identify(rows: Int64) -> Ids:
    """Identities of rows of the pool."""
    return np.column_stack([rows, rows, rows, rows]).astype(np.uint64)


Placing = Callable[[Sequence[Ids], Ids, int], list[Int64]]


def follow(
    nights: Sequence[Int64], sizes: NDArray[np.float64], samples_per_shard: int, rule: Placing
) -> Iterator[tuple[float, int]]:
    """Yield, for each night, the share of bytes in tars of the night before, and the number of tars."""
    before: list[Ids] = []
    for kept in nights:
        now = identify(kept)
        tars = [now[rows] for rows in rule(before, now, samples_per_shard)]
        known = {tar.tobytes() for tar in before}
        same = [tar[:, 0].astype(np.int64) for tar in tars if tar.tobytes() in known]
        reused = sum(float(sizes[rows].sum()) for rows in same)
        yield reused / float(sizes[kept].sum()), len(tars)
        before = tars


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--samples-per-shard", type=int, nargs="+", default=[10, 50, 200])
    arguments = parser.parse_args()
    selections: list[tuple[str, float, Callable[[Pool], Int64]]] = [
        ("score, `min_score`", 0.01, keep_by_score),
        ("score, `fraction`", 0.01, keep_by_fraction),
        ("d2", 0.0005, keep_by_d2),
        ("d2, fixed gammas and offset", 0.0005, lambda pool: keep_by_d2(pool, **FIXED)),
        ("d2, fixed gammas and offset", 0.002, lambda pool: keep_by_d2(pool, **FIXED)),
        ("d2, fixed gammas and offset", 0.01, lambda pool: keep_by_d2(pool, **FIXED)),
    ]
    print(
        "| selection | added a night | left a night | samples per tar | re-used: first ten, last ten nights "
        "| tars, last night | without dissolving: re-used, last ten | tars |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, growth, keep in selections:
        pool = Pool.make(arguments.rows)
        nights = [keep(pool)]
        for _ in range(arguments.nights):
            pool.grow(max(1, round(growth * len(pool.scores))))
            nights.append(keep(pool))
        left = np.mean([1 - np.isin(a, b).mean() for a, b in itertools.pairwise(nights)])
        for samples in arguments.samples_per_shard:
            found = list(follow(nights, pool.sizes, samples, place))[1:]
            plain = list(follow(nights, pool.sizes, samples, place_without_dissolving))[1:]
            first, last, other = (
                np.mean([share for share, _ in part]) for part in (found[:10], found[-10:], plain[-10:])
            )
            least = -(-len(nights[-1]) // samples)
            print(
                f"| {name} | {growth:.2%} | {left:.2%} | {samples} | {first:.0%}, {last:.0%} "
                f"| {found[-1][1]} (at least {least}) | {other:.0%} | {plain[-1][1]} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
