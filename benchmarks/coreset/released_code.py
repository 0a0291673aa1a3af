"""Compare the visiting order of the paper's released script with the algorithm of the paper.

    python -m benchmarks.coreset.released_code --size 20000                  # synthetic clusters
    python -m benchmarks.coreset.released_code --work-dir WORK               # the artifacts of a run
    python -m benchmarks.coreset.released_code --coreset out/sentences       # benchmarks.coreset, seed 0

The DataComp script released with the paper sorts the pool by forward score once. It goes down that
list and lowers the scores of each pick's neighbours, but compares the head of the list only with
the next item, never with the rest. Here, that rule, implemented from this description, runs on the
same graph, scores and gammas as the exact selection, so the table shows the effect of the visiting
order alone. (The script also searches with quantised codes and one probe, and keeps the graph
directed.)

Prints a markdown table of the agreement between the two and the forward score.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.graph import pool
from d2prune import scores, store
from d2prune.d2.api import select
from d2prune.d2.budget import ranking, top
from d2prune.errors import UserError
from d2prune.knn.csr import Graph
from d2prune.knn.in_memory import knn_graph
from d2prune.parts.reader import Parts
from d2prune.rank.features import read_features
from d2prune.scores.column import read_score
from d2prune.store import artifacts

GAMMA, FRACTION = 1.0, 0.3


def stale_order(graph: Graph, forward: NDArray[np.float64], gamma: float, m: int) -> list[int]:
    """Pick m nodes from a list sorted once: at each step the better of its first two items."""
    x = forward.copy()
    waiting = np.argsort(-forward, kind="stable").tolist()[::-1]
    picks: list[int] = []
    while len(picks) < m:
        head = waiting.pop()
        if waiting and x[waiting[-1]] > x[head]:
            head, waiting[-1] = waiting[-1], head
        picks.append(head)
        row = slice(graph.indptr[head], graph.indptr[head + 1])
        # The paper's equation, without the clamp.
        x[graph.indices[row]] -= np.exp(-gamma * graph.sq_distances[row]) * x[head]
    return picks


def agreement(a: NDArray[np.int64] | list[int], b: NDArray[np.int64]) -> str:
    """Return the share of common picks in percent."""
    return f"{len(np.intersect1d(a, b)) / len(b):.1%}"


def make_synthetic(size: int) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float64]]]:
    """Return embeddings and difficulties by name of synthetic clusters."""
    rng = np.random.default_rng(0)
    return pool(size, n_dims=128), {
        "uniform": rng.random(size),
        "normal + 0.115": rng.normal(0.25, 0.05, size) + 0.115,
    }


def read_run(work_dir: str) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float64]]]:
    """Return image+text features and the clip_score of a run, shifted as in the paper's script.

    Raises:
        UserError: the folder holds no embed artifact, or several.
    """
    folder = store.join(work_dir, "embed")
    found = store.list_files(folder, f"*/{artifacts.MANIFEST}")
    if len(found) != 1:
        raise UserError(f"--work-dir {work_dir}: found {len(found)} embed artifacts; expected one")
    manifest = artifacts.read_manifest(folder, found[0].url.rsplit("/", 2)[-2])
    assert manifest is not None
    parts = Parts(work_dir, {"embed": manifest.units})
    score = read_score(parts, range(len(manifest.units)), "clip_score", "clip_score").astype(np.float64)
    return read_features(parts, "image+text"), {"clip_score + 0.115": score + 0.115}


def read_coreset(out: Path) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float64]]]:
    """Return the embeddings and scores of a folder of benchmarks.coreset, seed 0."""
    log = scores.TrainingLog.load(str(out / "scores" / "log-0.npz"))
    vectors = out / "scores" / "vectors.npy"
    rows = np.load(vectors if vectors.exists() else out / "scores" / "features-0.npy")[: len(log.labels)]
    p, labels = log.probabilities, log.labels
    by_name = {
        "el2n": scores.el2n(p, labels),
        "forgetting": scores.forgetting(p, labels),
        "aum": scores.aum(log.logits, labels),
    }
    return rows, {name: (score - score.min()).astype(np.float64) for name, score in by_name.items()}


def compare(
    embeddings: NDArray[np.float32], difficulties: dict[str, NDArray[np.float64]]
) -> Iterator[tuple[str, int, str, str, str]]:
    """Yield the rows of the table."""
    m = int(len(embeddings) * FRACTION)
    for k in (1, 5, 15):
        graph = knn_graph(embeddings, k)
        for name, difficulty in difficulties.items():
            exact = select(graph, np.maximum(difficulty, 0), GAMMA, GAMMA)
            d2 = top(exact.selection_score, m)
            by_forward = ranking(exact.forward_score)[:m]
            stale = stale_order(graph, exact.forward_score / 2**40, GAMMA, m)
            yield name, k, agreement(stale, by_forward), agreement(stale, d2), agreement(by_forward, d2)


def main() -> None:
    """Read or make the embeddings, compare the orders and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=20_000, help="number of synthetic samples (%(default)s)")
    parser.add_argument("--work-dir", help="work_dir of a run")
    parser.add_argument("--coreset", type=Path, help="--out folder of benchmarks.coreset")
    args = parser.parse_args()
    if args.work_dir:
        embeddings, difficulties = read_run(args.work_dir)
    elif args.coreset:
        embeddings, difficulties = read_coreset(args.coreset)
    else:
        embeddings, difficulties = make_synthetic(args.size)
    print(f"{len(embeddings):,} samples, {FRACTION:.0%} kept, gamma {GAMMA}\n")
    print(
        "| scores | k | stale order = top by forward score | stale order = D2 | top by forward score = D2 |"
    )
    print("|---|---|---|---|---|")
    for row in compare(embeddings, difficulties):
        print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)


if __name__ == "__main__":
    main()
