"""Brute-force nearest neighbours, obviously right: float64 differences, squared, summed; ties to the lower row."""

from __future__ import annotations

import math

import numpy as np


def canonical_sq_distance(a, b) -> np.float32:
    """The documented order: 16 lanes, a binary tree, then the rest one by one; float64 rounded once."""
    whole = len(a) - len(a) % 16
    lanes = [0.0] * 16
    for i in range(whole):
        d = float(a[i]) - float(b[i])
        lanes[i % 16] += d * d
    while len(lanes) > 1:
        lanes = [lanes[i] + lanes[i + 1] for i in range(0, len(lanes), 2)]
    total = lanes[0]
    for i in range(whole, len(a)):
        d = float(a[i]) - float(b[i])
        total += d * d
    return np.float32(total)


def unit_rows(rows) -> np.ndarray:
    """Each row over its float64 norm, summed in the documented order, rounded to float32."""
    out = np.empty(np.shape(rows), np.float32)
    for n, row in enumerate(np.asarray(rows, np.float32)):
        whole = len(row) - len(row) % 16
        lanes = [0.0] * 16
        for i in range(whole):
            lanes[i % 16] += float(row[i]) ** 2
        while len(lanes) > 1:
            lanes = [lanes[i] + lanes[i + 1] for i in range(0, len(lanes), 2)]
        total = lanes[0]
        for i in range(whole, len(row)):
            total += float(row[i]) ** 2
        out[n] = [np.float32(float(x) / math.sqrt(total)) for x in row]
    return out


def sorted_pairs(queries, members, positions) -> list[list[tuple[np.float32, int]]]:
    """All (d2, position) pairs of each query, ascending."""
    return [
        sorted((canonical_sq_distance(q, m), int(p)) for m, p in zip(members, positions, strict=True))
        for q in queries
    ]


def knn_edges(rows, n_neighbors) -> dict[tuple[int, int], np.float32]:
    """Directed edges (i, j) -> d2 of the undirected kNN graph."""
    edges = {}
    everything = sorted_pairs(rows, rows, range(len(rows)))
    for i, pairs in enumerate(everything):
        for distance, j in [pair for pair in pairs if pair[1] != i][:n_neighbors]:
            edges[i, j] = edges[j, i] = distance
    return edges


def edges_of(graph) -> dict[tuple[int, int], np.float32]:
    """The edges of a Graph, in the same form."""
    return {
        (i, int(graph.indices[e])): graph.sq_distances[e]
        for i in range(len(graph.indptr) - 1)
        for e in range(graph.indptr[i], graph.indptr[i + 1])
    }
