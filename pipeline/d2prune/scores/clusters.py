"""Difficulty without labels: how far a sample lies from the nearest of a few typical ones; arrays in, float32 out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.threads import available_cores
from d2prune.errors import UserError
from d2prune.knn.features import unit_rows
from d2prune.knn.quantiser import Quantiser, train

_ITERATIONS = 20


def prototypes(
    embeddings: NDArray[Any], n_clusters: int, seed: int = 0, threads: int | None = None
) -> NDArray[np.float32]:
    """Squared distance to the nearest of `n_clusters` k-means centroids. High = far = hard = wanted; as defined.

    Sorscher et al., "Beyond neural scaling laws", NeurIPS 2022, arXiv 2206.14486, section 5:
    embeddings of a model trained without labels, about as many clusters as there are classes; they
    take the cosine to the centroid. Rows are normalised. Where data is scarce keep easy samples
    instead (their section 3), by the negative of this score.

    Args:
        embeddings: floats [N, D].
        n_clusters: 1 <= n_clusters <= N.
        seed: of the k-means start.
        threads: changes speed only; default: the cores there are.

    Returns:
        float32 [N], 0 to 4; the canonical distance of graph.distances.

    Raises:
        UserError: fewer samples than clusters, or rows that cannot be normalised.
    """
    rows_ND = unit_rows(np.asarray(embeddings))
    if not 1 <= n_clusters <= len(rows_ND):
        raise UserError(f"n_clusters is {n_clusters}, expected 1 to {len(rows_ND)}, the number of samples")
    threads = threads or available_cores()
    centroids = train(rows_ND, n_clusters, seed, _ITERATIONS, threads)
    return Quantiser(centroids).nearest(rows_ND, 1, threads).sq_distances[:, 0]
