"""Hypothesis strategies: small graphs that cover the edge cases, and scores for them."""

import numpy as np
from hypothesis import strategies as st

from tests.oracles import graph_from_edges

# Few distinct distances and scores make ties common; distance 0 is a duplicate, 100 a weight of zero.
DISTANCES = st.sampled_from([0.0, 0.0, 0.1, 0.5, 0.5, 1.0, 3.0, 30.0, 100.0]) | st.floats(0, 4, width=32)
SCORES = st.sampled_from([0.0, 0.0, 1.0, 1.0, 0.5, 1e-9, 1000.0, 9000.5]) | st.floats(0, 5, width=32)
GAMMAS = st.sampled_from([0.0, 0.1, 1.0, 2.5])


def shape(kind, n):
    if kind == "clique":
        return [(i, j) for i in range(n) for j in range(i + 1, n)]
    if kind == "star":
        return [(0, j) for j in range(1, n)]
    if kind == "chain":
        return [(i, i + 1) for i in range(n - 1)]
    if kind == "cycle":
        return [(i, i + 1) for i in range(n - 1)] + ([(0, n - 1)] if n > 2 else [])
    return []


@st.composite
def graphs(draw, max_nodes=14):
    n = draw(st.integers(1, max_nodes))
    kind = draw(st.sampled_from(["any", "any", "any", "clique", "star", "chain", "cycle", "none"]))
    if kind == "any":
        pairs = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda p: p[0] < p[1])
        edges = draw(st.dictionaries(pairs, DISTANCES, max_size=4 * n)) if n > 1 else {}
    else:
        pairs = shape(kind, n)
        if draw(st.booleans()):
            edges = dict.fromkeys(pairs, draw(DISTANCES))
        else:
            edges = dict(
                zip(pairs, draw(st.lists(DISTANCES, min_size=len(pairs), max_size=len(pairs))), strict=True)
            )
        shuffled = draw(st.permutations(range(n)))
        edges = {tuple(sorted((shuffled[i], shuffled[j]))): d for (i, j), d in edges.items()}
    return graph_from_edges(n, edges)


@st.composite
def problems(draw, max_nodes=14):
    """(graph, scores); the scores are all equal, all zero or mixed."""
    graph = draw(graphs(max_nodes))
    n = graph.n_nodes
    kind = draw(st.sampled_from(["mixed", "mixed", "equal", "zero"]))
    if kind == "mixed":
        scores = np.array(draw(st.lists(SCORES, min_size=n, max_size=n)))
    else:
        scores = np.full(n, 0.0 if kind == "zero" else draw(SCORES))
    return graph, scores
