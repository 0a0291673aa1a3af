"""Naive references for the baselines: one sample at a time, plain Python, every step from the definition."""

from __future__ import annotations

import math
import statistics

import numpy as np

from d2prune.knn.distances import sq_distance
from tests.oracles import SCALE, naive_exp_neg, neighbours
from tests.oracles_scores import added


def sq(a, b):
    """The canonical squared distance (tests/knn/test_distances.py checks it)."""
    return float(sq_distance(np.ascontiguousarray(a), np.ascontiguousarray(b)))


def k_center(rows, m, start):
    picks = [start]
    while len(picks) < m:
        left = [i for i in range(len(rows)) if i not in picks]
        picks.append(max(left, key=lambda i: (min(sq(rows[i], rows[p]) for p in picks), -i)))
    return picks


def herding(rows, m):
    rows = np.asarray(rows, np.float64).tolist()
    mean = [added(column) / len(rows) for column in zip(*rows, strict=True)]
    want, picks = list(mean), []
    for _ in range(m):
        left = [i for i in range(len(rows)) if i not in picks]
        pick = max(left, key=lambda i: (added(w * v for w, v in zip(want, rows[i], strict=True)), -i))
        picks.append(pick)
        want = [w + (mu - v) for w, mu, v in zip(want, mean, rows[pick], strict=True)]
    return picks


def facility_location(graph, m, gamma):
    near = neighbours(graph)
    n = len(near)
    similar = [
        {j: round(naive_exp_neg(gamma * d) * SCALE) for j, d in row.items()} | {i: SCALE}
        for i, row in enumerate(near)
    ]

    def value(picks):
        return sum(max((similar[p].get(i, 0) for p in picks), default=0) for i in range(n))

    picks = []
    while len(picks) < m:
        picks.append(max((i for i in range(n) if i not in picks), key=lambda i: (value([*picks, i]), -i)))
    return picks


def info_max(graph, score, alpha, m):
    near = neighbours(graph)
    fixed = [round(float(value) * SCALE) for value in score]
    # Of an unordered pair, which the objective counts twice.
    cost = [{j: round(2 * alpha * max(1 - d / 2, 0.0) * SCALE) for j, d in row.items()} for row in near]

    def value(picks):
        return sum(fixed[i] for i in picks) - sum(cost[i].get(j, 0) for i in picks for j in picks if j < i)

    picks = []
    while len(picks) < m:
        left = (i for i in range(len(near)) if i not in picks)
        picks.append(max(left, key=lambda i: (value([*picks, i]), -i)))
    return picks


def moderate(rows, labels):
    rows = np.asarray(rows, np.float64).tolist()
    away = {}
    for label in set(labels):
        members = [i for i in range(len(rows)) if labels[i] == label]
        centre = [added(rows[i][d] for i in members) / len(members) for d in range(len(rows[0]))]
        distance = {
            i: math.sqrt(added((a - b) * (a - b) for a, b in zip(rows[i], centre, strict=True)))
            for i in members
        }
        median = statistics.median(distance.values())
        away |= {i: abs(d - median) for i, d in distance.items()}
    return sorted(away, key=lambda i: (away[i], i))


def ccs(score, m, drop_fraction, n_strata, draw):
    """Algorithm 1 of arXiv 2210.15809: the sorted picks. `draw(P)` gives the random order of P samples."""
    n = len(score)
    hardest = sorted(range(n), key=lambda i: (-score[i], -i))[: math.floor(round(n * drop_fraction, 9))]
    left = [i for i in range(n) if i not in hardest]
    drawn = dict(zip(left, draw(len(left)), strict=True))
    low, high = min(score[i] for i in left), max(score[i] for i in left)
    bins = {}
    for i in left:
        place = 0 if low == high else min(int((score[i] - low) / (high - low) * n_strata), n_strata - 1)
        bins.setdefault(place, []).append(i)
    picks, wanted = [], m
    waiting = sorted(bins.items(), key=lambda item: (len(item[1]), item[0]))
    while waiting:
        _, members = waiting.pop(0)
        share = min(len(members), wanted // (len(waiting) + 1))
        picks += sorted(members, key=lambda i: drawn[i])[:share]
        wanted -= share
    assert wanted == 0
    return sorted(picks)


def semdedup(rows, cluster, priority):
    """(pick order, squared distance to the nearest before it in its cluster's line)."""
    away = []
    for i in range(len(rows)):
        before = [
            j for j in range(len(rows)) if cluster[j] == cluster[i] and (-priority[j], j) < (-priority[i], i)
        ]
        away.append(min((sq(rows[i], rows[j]) for j in before), default=math.inf))
    return sorted(range(len(rows)), key=lambda i: (-away[i], i)), away
