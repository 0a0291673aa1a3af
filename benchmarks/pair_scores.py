"""s-CLIPLoss: speed beside the machine's matrix products, and how many references it takes to be stable.

    python -m benchmarks.pair_scores --rows 20000 --pool 200000 --dims 512

The pool is synthetic: clusters of images, captions near their image, 30 % of the captions swapped.
Scores `--rows` rows against references drawn from `--pool` rows, and prints the rate of a product of
the same shapes in the same process, the rate of the score, and the rank correlation between scores from
independent references.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import time

import numpy as np
import torch
from numpy.typing import NDArray

from d2prune.compiled.threads import available_cores, parallel_ranges
from d2prune.knn.features import unit_rows
from d2prune.scores.pairs import REFERENCE_SIZE, TEMPERATURE, Reference, average_s_clip_loss, draw_references

Float32 = NDArray[np.float32]


def make_pool(n: int, dims: int, seed: int = 0) -> tuple[Float32, Float32]:
    """Return image and text rows, float32 [n, dims]; matching pairs have a cosine of about 0.3."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(2, n // 50), dims)).astype(np.float32)
    content = centres[rng.integers(0, len(centres), n)] + rng.normal(size=(n, dims)).astype(np.float32)
    image = content + rng.normal(size=(n, dims)).astype(np.float32)
    text = content + 2.5 * rng.normal(size=(n, dims)).astype(np.float32)
    swapped = np.flatnonzero(rng.random(n) < 0.3)
    text[swapped] = text[rng.permutation(swapped)]
    return unit_rows(image), unit_rows(text)


def product_rate(rows: Float32, others: Float32, threads: int) -> float:
    """Return floating-point operations per second of products in blocks of 1,024 x 8,192."""
    left, right = torch.from_numpy(rows), torch.from_numpy(others)
    started = time.perf_counter()

    def multiply(start: int, stop: int) -> None:
        for first in range(0, len(right), 8192):
            left[start:stop] @ right[first : first + 8192].T

    parallel_ranges(multiply, len(left), threads, 1024)
    return 2.0 * len(rows) * len(others) * rows.shape[1] / (time.perf_counter() - started)


def spearman(a: Float32, b: Float32) -> float:
    """Return the rank correlation of two scores."""
    ranks = [np.argsort(np.argsort(score)).astype(np.float64) for score in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def main() -> None:
    """Print the rates and the correlations."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--pool", type=int, default=200_000)
    parser.add_argument("--dims", type=int, default=512)
    parser.add_argument("--references", type=int, default=10)
    options = parser.parse_args()
    image, text = make_pool(options.pool, options.dims)
    threads, positions = available_cores(), np.arange(options.rows)
    drawn = draw_references(options.pool, REFERENCE_SIZE, options.references, seed=0)
    rate = product_rate(image[: options.rows], text[drawn[0]], threads)
    rows = image[: options.rows], text[: options.rows], positions
    scores, started = [], time.perf_counter()
    for rows_M in drawn:
        reference = Reference(rows_M, image[rows_M], text[rows_M])
        scores.append(average_s_clip_loss(*rows, [reference], TEMPERATURE, threads))
    seconds = (time.perf_counter() - started) / len(drawn)
    own = 2 * 2.0 * options.rows * len(drawn[0]) * options.dims / seconds
    print(f"products {rate / 1e9:.0f} GFLOP/s, s_clip_loss {own / 1e9:.0f} GFLOP/s: {own / rate:.0%}")
    print(f"{options.rows / seconds:,.0f} rows/s for one reference of {len(drawn[0]):,}, {threads} threads")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    for count in (1, options.references // 2):
        groups = [np.mean(scores[first : first + count], axis=0) for first in range(0, len(scores), count)]
        pairs = [spearman(a, b) for a, b in itertools.combinations(groups, 2)]
        print(f"mean of {count} references: rank correlation between independent draws {np.mean(pairs):.5f}")


if __name__ == "__main__":
    main()
