"""Rows that are hard to search, and helpers shared by the tests of the kernels."""

import numpy as np

from d2prune.knn import projections
from d2prune.knn.products import best_precision
from d2prune.knn.top_k import NO_POSITION

PRECISIONS = ["float32", "bfloat16"] if best_precision() == "bfloat16" else ["float32"]


def pairs_of(top):
    """The (distance, position) pairs that each query holds."""
    return [
        [(d, int(p)) for d, p in zip(distances, positions, strict=True) if p != NO_POSITION]
        for distances, positions in zip(top.sq_distances, top.positions, strict=True)
    ]


def rows_with_ties(rng, n_rows, n_dims, kind):
    """Lattice points tie exactly; jittered rows differ by less than bfloat16 resolves; others are normal."""
    if kind == "lattice":
        return rng.integers(-1, 2, (n_rows, n_dims)).astype(np.float32)
    rows = rng.normal(size=(n_rows, n_dims)).astype(np.float32)
    if kind == "jitter":
        rows = rows[rng.integers(0, max(1, n_rows // 8), n_rows)]
        rows += rng.normal(size=rows.shape).astype(np.float32) * np.float32(1e-4)
    return rows


def always_project(patch):
    """Make every search use projections of eight dimensions, however small the pool."""
    for name, value in (("PROJECTED_DIMS", 8), ("_LEAST_DIMS", 9), ("_LEAST_SHARE", 0.0), ("_SUMMED", 5)):
        patch.setattr(projections, name, value)
    patch.setattr(projections, "_LEAST_PRODUCTS", 0)
    patch.setattr(projections, "_LEAST_PAIRS_PER_ROW", 0)
