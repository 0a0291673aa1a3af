"""Naive references of D2 Pruning: quadratic, in plain Python, obviously right."""

from __future__ import annotations

import math

import numpy as np

SCALE = 1 << 40


def naive_exp_neg(x: float) -> float:
    """exp(-x) by the documented steps in Python floats (which never fuse or reorder anything)."""
    if x > 45.0:
        return 0.0
    k = round(x * 1.4426950408889634)
    r = (x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10
    z = r * r
    c = [1 / math.factorial(i) for i in range(14)]
    even = c[12]
    for i in (10, 8, 6, 4, 2):
        even = c[i] + z * even
    odd = c[13]
    for i in (11, 9, 7, 5, 3):
        odd = c[i] + z * odd
    return math.ldexp(1.0 - (r - z * (even - r * odd)), -k)


def neighbours(graph):
    """[{j: squared distance}] for each node."""
    return [
        {int(j): float(d) for j, d in zip(graph.indices[a:b], graph.sq_distances[a:b], strict=True)}
        for a, b in zip(graph.indptr[:-1], graph.indptr[1:], strict=True)
    ]


def naive_d2(graph, difficulty, gamma_forward=1.0, gamma_reverse=1.0):
    """The greedy algorithm in exact integers.

    Returns lists of Python ints: forward scores, t, pick order, suppressed_by, suppression.
    """
    near = neighbours(graph)
    n = len(near)
    s = [round(float(v) * SCALE) for v in difficulty]
    x = [
        s[i] + sum(round(naive_exp_neg(gamma_forward * d) * float(s[j])) for j, d in near[i].items())
        for i in range(n)
    ]
    forward, t, order = list(x), [0] * n, []
    suppressed_by, suppression = [-1] * n, [0] * n
    left = set(range(n))
    while left:
        i = min(left, key=lambda u: (-x[u], u))
        left.remove(i)
        t[i] = x[i]
        order.append(i)
        for j, d in near[i].items():
            if j in left:
                message = round(naive_exp_neg(gamma_reverse * d) * float(max(t[i], 0)))
                x[j] -= message
                if message > suppression[j] or (message == suppression[j] > 0 and i < suppressed_by[j]):
                    suppressed_by[j], suppression[j] = i, message
    return forward, t, order, suppressed_by, suppression


def paper_picks(graph, difficulty, m, gamma_forward=1.0, gamma_reverse=1.0):
    """The paper's definition (equations 1 and 2) in floats, without the clamp.

    Returns m picks, their values, and the lead of each over the next best when it was picked.
    """
    near = neighbours(graph)
    n = len(near)
    x = [
        difficulty[i] + sum(math.exp(-gamma_forward * d) * difficulty[j] for j, d in near[i].items())
        for i in range(n)
    ]
    picks, values, leads = [], [], []
    for _ in range(m):
        left = sorted((u for u in range(n) if u not in picks), key=lambda u: -x[u])
        i = left[0]
        picks.append(i)
        values.append(x[i])
        leads.append(x[i] - x[left[1]] if len(left) > 1 else math.inf)
        for j, d in near[i].items():
            x[j] -= math.exp(-gamma_reverse * d) * x[i]
    return picks, values, leads


def graph_from_edges(n, edges):
    """A Graph from {(i, j): squared distance}, i < j."""
    from d2prune.knn.csr import Graph

    rows = [{} for _ in range(n)]
    for (i, j), d in edges.items():
        rows[i][j] = rows[j][i] = d
    indptr = np.cumsum([0] + [len(r) for r in rows]).astype(np.int64)
    indices = np.array([j for r in rows for j in sorted(r)], np.int64)
    distances = np.array([r[j] for r in rows for j in sorted(r)], np.float32)
    return Graph(indptr, indices, distances)


def naive_deduplicate(graph, difficulty, limit):
    """The keeper of each node, or -1 if it stays: one node after another, by falling difficulty."""
    near = neighbours(graph)
    stays, keeper = set(), [-1] * len(near)
    for i in sorted(range(len(near)), key=lambda u: (-difficulty[u], u)):
        kept = [(d, j) for j, d in near[i].items() if d <= limit and j in stays]
        if kept:
            keeper[i] = min(kept)[1]
        else:
            stays.add(i)
    return keeper
