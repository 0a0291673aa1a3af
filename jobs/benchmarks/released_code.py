"""What visiting a stale sort order selects, against the algorithm of the paper; prints a markdown table.

The DataComp script released with the paper sorts the pool by forward score once. It goes down that list, lowers the
values of each pick's neighbours, and compares only the head of the list with the next item, never with the rest.
Here that rule, written from this description, runs on the same graph, scores and gammas as the exact selection, so the
table shows the effect of the visiting order alone (the script also searches with quantised codes and one probe, and
keeps the graph directed).

    python -m jobs.benchmarks.released_code --size 20000
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from jobs.benchmarks.graph import pool
from pipeline.graph.csr import Graph
from pipeline.graph.knn import knn_graph
from pipeline.selection.api import select
from pipeline.selection.budget import ranking, top

GAMMA, FRACTION = 1.0, 0.3


def stale_order(graph: Graph, forward: NDArray[np.float64], gamma: float, m: int) -> list[int]:
    """Pick m down the list sorted once: at each step the better of the head and the item after it."""
    x = forward.copy()
    waiting = np.argsort(-forward, kind="stable").tolist()[::-1]
    picks: list[int] = []
    while len(picks) < m:
        head = waiting.pop()
        if waiting and x[waiting[-1]] > x[head]:
            head, waiting[-1] = waiting[-1], head
        picks.append(head)
        row = slice(graph.indptr[head], graph.indptr[head + 1])
        # Without the clamp: the paper's equation as it stands.
        x[graph.indices[row]] -= np.exp(-gamma * graph.sq_distances[row]) * x[head]
    return picks


def agreement(a: NDArray[np.int64] | list[int], b: NDArray[np.int64]) -> str:
    """Share of picks in common."""
    return f"{len(np.intersect1d(a, b)) / len(b):.1%}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=20_000)
    args = parser.parse_args()
    n, m = args.size, int(args.size * FRACTION)
    embeddings = pool(n, n_dims=128)
    rng = np.random.default_rng(0)
    print(f"{n:,} samples, {FRACTION:.0%} kept, gamma {GAMMA}\n")
    print("| scores | k | stale order = top by forward score | stale order = D2 | top by forward score = D2 |")
    print("|---|---|---|---|---|")
    for name, difficulty in (("uniform", rng.random(n)), ("normal + 0.115", rng.normal(0.25, 0.05, n) + 0.115)):
        for k in (1, 5, 15):
            graph = knn_graph(embeddings, k)
            exact = select(graph, np.maximum(difficulty, 0), GAMMA, GAMMA)
            d2 = top(exact.selection_score, m)
            by_forward = ranking(exact.forward_score)[:m]
            stale = stale_order(graph, exact.forward_score / 2**40, GAMMA, m)
            cells = agreement(stale, by_forward), agreement(stale, d2), agreement(by_forward, d2)
            print(f"| {name} | {k} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
