"""Whether an image is in a cluster that also holds an image of a target set: DataComp's image-based baseline.

N images, M centroids, D dimensions. torch is imported where it multiplies, since it takes a second.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.threads import parallel_ranges

Float32 = NDArray[np.float32]
# A block of products is 32 MiB.
_ROWS, _COLUMNS = 1024, 8192


def find_nearest(
    image_ND: Float32, centroids_MD: Float32, threads: int, device: str = "cpu"
) -> NDArray[np.int64]:
    """Return the centroid with the largest inner product with each image; of equal ones the first.

    Source: Gadre et al., "DataComp", arXiv 2304.14108, section 3.4. Centroids are not normalised, as there.

    Args:
        image_ND: float32 [N, D], unit norm.
        centroids_MD: float32 [M, D].
        threads: number of threads; one on a GPU.
        device: torch device of the products.

    Returns:
        int64 [N].
    """
    import torch

    nearest_N = np.zeros(len(image_ND), np.int64)
    centroids = torch.from_numpy(centroids_MD).to(device)

    def compute(start: int, stop: int) -> None:
        rows = torch.from_numpy(image_ND[start:stop]).to(device)
        best = torch.full((stop - start,), -torch.inf, device=device)
        nearest = torch.zeros(stop - start, dtype=torch.int64, device=device)
        for left in range(0, len(centroids), _COLUMNS):
            product, index = (rows @ centroids[left : left + _COLUMNS].T).max(dim=1)
            nearest = torch.where(product > best, index + left, nearest)
            best = torch.maximum(best, product)
        nearest_N[start:stop] = nearest.cpu().numpy()

    parallel_ranges(compute, len(image_ND), threads, _ROWS)
    return nearest_N


def near_target(
    image_ND: Float32,
    centroids_MD: Float32,
    target_clusters: NDArray[np.int64],
    threads: int,
    device: str = "cpu",
) -> Float32:
    """Return 1 for images whose nearest centroid is in `target_clusters`, else 0; float32 [N]."""
    nearest_N = find_nearest(image_ND, centroids_MD, threads, device)
    return np.isin(nearest_N, target_clusters).astype(np.float32)
