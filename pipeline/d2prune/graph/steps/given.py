"""Step `quantiser` of a graph whose quantiser is given: draws the sample that recall is measured on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from d2prune.errors import UserError
from d2prune.graph.steps.job import Job
from d2prune.graph.steps.part_rows import RANKED, local_groups, read_rows
from d2prune.graph.steps.quantise import CENTROIDS, CHECKED, SIZES
from d2prune.graph.steps.state import RANKS
from d2prune.graph.trained import read_trained
from d2prune.knn.recall import RECALL_QUERIES
from d2prune.knn.stable_sample import NO_RANKS, lowest
from d2prune.stage import exchange
from d2prune.store.artifacts import Receipt

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Ranks = NDArray[np.uint64]

_READERS = 8


def adopt_quantiser(job: Job, _: int) -> Receipt:
    """Take the given centroids, and draw the sample that recall is measured on.

    Raises:
        UserError: the embeddings have other dimensions than the centroids.
    """
    assert job.given is not None
    trained = read_trained(job.folder, job.given)
    ranks_S, positions_S = draw_sample(
        job,
        trained.tuning,
        lambda part: (local_groups(job, part).first_Q, job.array("distinct", part, RANKED)),
    )
    rows_SD = read_rows(job, positions_S)
    check_dimensions(rows_SD.shape[1], trained.centroids)
    files = {
        CENTROIDS: trained.centroids,
        # Unknown before the rows are assigned; partitions of equal numbers of lists will do.
        SIZES: np.ones(len(trained.centroids), np.int64),
        f"{CHECKED}.npy": rows_SD,
        f"{CHECKED}-positions.npy": positions_S,
        RANKS: ranks_S,
    }
    return job.commit("quantiser", 0, files, facts={"nlist": len(trained.centroids)})


def check_dimensions(n_dims: int, centroids_LD: Float32) -> None:
    """Check that a quantiser belongs to the embeddings.

    Raises:
        UserError: it was trained on others.
    """
    if n_dims != centroids_LD.shape[1]:
        raise UserError(
            f"graph.quantiser: found lists of {centroids_LD.shape[1]} dimensions; expected {n_dims}, as the "
            "embeddings have"
        )


def draw_sample(
    job: Job, excluded: Ranks, read_ranked: Callable[[int], tuple[Int64, exchange.Records]]
) -> tuple[Ranks, Int64]:
    """Return the sample of a pool: the lowest ranks, and the first position of each, ascending.

    Args:
        job: the graph.
        excluded: uint64, ranks that are not sampled.
        read_ranked: returns, of a part, the first rows of its groups and its RANKED_ROW records.
    """
    rank_N, position_N = NO_RANKS, np.zeros(0, np.int64)
    with ThreadPoolExecutor(_READERS) as pool:
        # A few parts at a time: the records of all parts, and their groups, would grow with the pool.
        for first in range(0, len(job.parts), _READERS):
            ranks, positions = [rank_N], [position_N]
            parts = range(first, min(first + _READERS, len(job.parts)))
            for part, (first_Q, ranked) in zip(parts, pool.map(read_ranked, parts), strict=True):
                ranks.append(ranked["rank"])
                positions.append(job.starts[part] + first_Q[ranked["row"]])
            rank_N, position_N = np.concatenate(ranks), np.concatenate(positions)
            # Each part has a rank once, and parts are in order: the first of a rank has the lowest position.
            chosen = lowest(rank_N, RECALL_QUERIES, excluded)
            rank_N, position_N = rank_N[chosen], position_N[chosen]
    order = np.argsort(position_N)
    return rank_N[order], position_N[order]
