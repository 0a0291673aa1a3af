"""Near-duplicates: one kernel, threads and partitions equal the naive greedy rule, and keep its promises."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune import deduplicate
from d2prune.d2.near_duplicates import max_sq_distance
from tests.graphs import problems
from tests.oracles import graph_from_edges, naive_deduplicate, neighbours

# Squared distances 0, 0.1 and 1.0 are among those that the graphs are drawn from.
COSINES = st.sampled_from([1.0, 0.95, 0.75, 0.5, 1e-6]) | st.floats(0.001, 1)


@given(problems(), COSINES, st.integers(1, 4), st.randoms(use_true_random=False), st.integers(-3, 3))
@settings(max_examples=150, deadline=None)
def test_any_partitioning_equals_the_naive_rule(problem, cosine, n_parts, random, shift):
    graph, scores = problem
    scores = scores + shift
    limit = float(max_sq_distance(cosine))
    expected = naive_deduplicate(graph, scores.tolist(), limit)
    owner = [random.randrange(n_parts) for _ in range(graph.n_nodes)]
    assert deduplicate(graph, scores, cosine).tolist() == expected
    assert deduplicate(graph, scores, cosine, threads=2).tolist() == expected
    assert deduplicate(graph, scores, cosine, partitions=owner).tolist() == expected
    for i, near in enumerate(neighbours(graph)):
        kept_near = [j for j, d in near.items() if d <= limit and expected[j] < 0]
        if expected[i] < 0:
            assert not kept_near
        else:
            assert expected[i] in kept_near and scores[expected[i]] >= scores[i]


def test_chain_loses_only_the_middle():
    """A ~ B ~ C: SemDeDup drops C because of B, although B is dropped itself."""
    chain = graph_from_edges(3, {(0, 1): 0.01, (1, 2): 0.01})
    assert deduplicate(chain, [3, 2, 1], 0.95).tolist() == [-1, 0, -1]
    assert deduplicate(chain, [1, 3, 1], 0.95).tolist() == [1, -1, 1]
    assert deduplicate(chain, [1, 1, 1], 0.95, partitions=[0, 1, 2]).tolist() == [-1, 0, -1]


def test_large_difficulties_and_many_neighbours_do_not_overflow():
    star = graph_from_edges(400, {(0, j): 0.0 for j in range(1, 400)})
    scores = np.full(400, 1e300)
    scores[0] = -1e300
    assert deduplicate(star, scores, 0.9).tolist() == [1, *[-1] * 399]
