"""Naive nearest neighbours by brute force: float64 differences, squared and summed; ties to the lower row."""

from __future__ import annotations

import math

import numpy as np


def canonical_sq_distance(a, b) -> np.float32:
    """Sum in the documented order: 16 lanes, a binary tree, then the rest one by one; rounded once."""
    return np.float32(_canonical_sum([(float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)]))


def _canonical_sum(terms) -> float:
    in_lanes = len(terms) - len(terms) % 16
    lanes = [0.0] * 16
    for i in range(in_lanes):
        lanes[i % 16] += terms[i]
    while len(lanes) > 1:
        lanes = [lanes[i] + lanes[i + 1] for i in range(0, len(lanes), 2)]
    total = lanes[0]
    for term in terms[in_lanes:]:
        total += term
    return total


def unit_rows(rows) -> np.ndarray:
    """Divide each row by its float64 norm, summed in the documented order; rounded to float32."""
    out = np.empty(np.shape(rows), np.float32)
    for n, row in enumerate(np.asarray(rows, np.float32)):
        norm = math.sqrt(_canonical_sum([float(x) ** 2 for x in row]))
        out[n] = [np.float32(float(x) / norm) for x in row]
    return out


def sorted_pairs(queries, members, positions) -> list[list[tuple[np.float32, int]]]:
    """List all (distance, position) pairs of each query, ascending."""
    return [
        sorted((canonical_sq_distance(q, m), int(p)) for m, p in zip(members, positions, strict=True))
        for q in queries
    ]


def knn_edges(rows, n_neighbors) -> dict[tuple[int, int], np.float32]:
    """Return the undirected kNN graph as directed edges (i, j) -> squared distance."""
    edges = {}
    all_pairs = sorted_pairs(rows, rows, range(len(rows)))
    for i, pairs in enumerate(all_pairs):
        for distance, j in [pair for pair in pairs if pair[1] != i][:n_neighbors]:
            edges[i, j] = edges[j, i] = distance
    return edges


def edges_of(graph) -> dict[tuple[int, int], np.float32]:
    """Return the edges of a Graph in the form of `knn_edges`."""
    return {
        (i, int(graph.indices[e])): graph.sq_distances[e]
        for i in range(len(graph.indptr) - 1)
        for e in range(graph.indptr[i], graph.indptr[i + 1])
    }
