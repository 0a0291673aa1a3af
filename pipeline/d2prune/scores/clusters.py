"""Difficulty without labels: the distance of each sample to the nearest typical one."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2prune.arguments import as_rows, as_whole
from d2prune.compiled.threads import available_cores
from d2prune.errors import ArgumentError
from d2prune.knn.features import unit_rows

_ITERATIONS = 20


def prototypes(
    embeddings: ArrayLike, n_clusters: int, seed: int = 0, threads: int | None = None
) -> NDArray[np.float32]:
    """Compute the squared distance of each sample to the nearest k-means centroid.

    Higher = farther from typical samples = harder = more wanted, as in the paper.

    Source: Sorscher et al., "Beyond neural scaling laws", NeurIPS 2022, arXiv 2206.14486, section 5.
    They use embeddings of a model trained without labels, about as many clusters as there are
    classes, and the cosine to the centroid instead of the squared distance. When data is scarce,
    easy samples are the better choice (their section 3): use the negative of this score.

    Args:
        embeddings: floats [N, D]; rows are normalised.
        n_clusters: 1 <= n_clusters <= N.
        seed: of the k-means start.
        threads: number of threads; affects speed only. Default: the cores available to this process.

    Returns:
        float32 [N], 0 to 4: the canonical distance of `knn.distances`.

    Raises:
        ArgumentError: n_clusters is out of range, or a row cannot be normalised.
    """
    rows_ND = unit_rows(as_rows(embeddings))
    if as_whole(n_clusters, "n_clusters", 1) > len(rows_ND):
        raise ArgumentError(
            f"n_clusters is {n_clusters}, expected 1 to {len(rows_ND)}, the number of samples"
        )
    threads = threads or available_cores()
    # Imported late: it loads torch, which takes a second.
    from d2prune.knn.quantiser import Quantiser, train

    centroids = train(rows_ND, n_clusters, seed, _ITERATIONS, threads)
    return Quantiser(centroids).nearest(rows_ND, 1, threads).sq_distances[:, 0]
