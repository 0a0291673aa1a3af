"""Any partitioning, any loss of a partition on the way: the same bits as the naive greedy."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.d2.api import select, selection_scores
from d2prune.d2.fixed_point import to_fixed
from d2prune.d2.partition import NO_MAIL, GraphPartition, Mail, node_id
from d2prune.d2.rounds import _deliver, dense_partitions, run_rounds, split
from d2prune.errors import UserError
from tests.oracles import graph_from_edges, naive_d2
from tests.selection.graphs import GAMMAS, problems


@given(problems(), GAMMAS, GAMMAS, st.integers(1, 6), st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_partitions_equal_naive_greedy_in_everything(problem, gamma_forward, gamma_reverse, n_parts, random):
    graph, scores = problem
    labels = [random.randrange(-1, n_parts) for _ in range(graph.n_nodes)]
    forward, t, _, suppressed_by, suppression = naive_d2(graph, scores, gamma_forward, gamma_reverse)
    for partitions in (None, labels):
        got = select(graph, scores, gamma_forward, gamma_reverse, partitions)
        assert got.forward_score.tolist() == forward
        assert got.selection_score.tolist() == t
        assert got.suppressed_by.tolist() == suppressed_by
        assert got.suppression.tolist() == suppression


@given(problems(), st.integers(2, 4), st.integers(0, 5), st.integers(0, 5), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_a_lost_partition_comes_back_from_a_checkpoint_of_any_age(problem, n_parts, saved, lost, random):
    graph, scores = problem
    owner, n_parts = dense_partitions(
        [random.randrange(n_parts) for _ in range(graph.n_nodes)], graph.n_nodes
    )
    victim = random.randrange(n_parts)
    parts = split(graph, owner, n_parts, to_fixed(scores), (1.0, 1.0))
    checkpoint = None
    sent = [p.start(mail) for p, mail in zip(parts, _deliver([p.introduce() for p in parts]), strict=True)]
    for r in range(500):
        if not any(len(mail.keys) for mail in sent) and not any(p.remaining for p in parts):
            break
        if r == saved:
            checkpoint = pickle.loads(pickle.dumps(parts[victim].state()))
        inbox = [mail.letters() for mail in _deliver(sent)]
        if r == lost:
            # What was on its way to and from the victim is lost with it.
            inbox = [{s: news for s, news in i.items() if s != victim} for i in inbox]
            fresh = split(graph, owner, n_parts, to_fixed(scores), (1.0, 1.0))[victim]
            parts[victim] = fresh
            introductions = _deliver([p.introduce() for p in parts])[victim]
            if checkpoint is None:
                again = fresh.start(introductions)
            else:
                fresh.restore(checkpoint)
                again = fresh.step(NO_MAIL)
            inbox[victim] = {
                p.partition: p.resend(victim) for p in parts if p.partition in introductions.partitions
            }
            for dest, news in again.letters().items():
                inbox[dest][victim] = news
        sent = [p.step(Mail.of(i)) for p, i in zip(parts, inbox, strict=True)]
    t = np.empty(graph.n_nodes, np.int64)
    for p in parts:
        t[p.own_positions] = p.scores()
    assert t.tolist() == naive_d2(graph, scores)[1]
    assert all(p.remaining == 0 for p in parts)


@given(problems(), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_messages_may_come_twice_and_late(problem, random):
    graph, scores = problem
    owner, n_parts = dense_partitions([random.randrange(3) for _ in range(graph.n_nodes)], graph.n_nodes)
    parts = split(graph, owner, n_parts, to_fixed(scores), (1.0, 1.0))
    introductions = _deliver([p.introduce() for p in parts])
    post = [
        (p.partition, dest, news)
        for p, mail in zip(parts, introductions, strict=True)
        for dest, news in p.start(mail).letters().items()
    ]
    while post:
        source, dest, news = post.pop(random.randrange(len(post)))
        if random.random() < 0.3:
            post.append((source, dest, news))
        answers = parts[dest].step(Mail.of({source: news})).letters()
        post += [(dest, to, more) for to, more in answers.items()]
    t = np.empty(graph.n_nodes, np.int64)
    for p in parts:
        t[p.own_positions] = p.scores()
    assert t.tolist() == naive_d2(graph, scores)[1]


@pytest.mark.parametrize("n_parts", [4, 64])
@pytest.mark.parametrize("clustered", [True, False])
def test_a_larger_graph_on_many_partitions(n_parts, clustered):
    rng = np.random.default_rng(7)
    n = 5000
    hops = rng.integers(1, 30, (n, 5))
    edges = {(min(i, j), max(i, j)): (i ^ j) % 97 / 48 for i in range(n) for j in (i + hops[i]) % n if i != j}
    graph = graph_from_edges(n, edges)
    scores = rng.integers(0, 20, n) / 10
    owner = np.arange(n) * n_parts // n if clustered else rng.integers(0, n_parts, n)
    one = selection_scores(graph, scores, threads=1)
    many = select(graph, scores, partitions=owner)
    assert (many.selection_score == one).all()
    assert many.rounds > 1 and many.messages > 0
    assert (selection_scores(graph, scores, threads=4) == one).all()


def test_a_long_decreasing_chain_across_partitions():
    n = 400
    graph = graph_from_edges(n, {(i, i + 1): 10.0 for i in range(n - 1)})
    scores = np.linspace(5, 1, n)
    partitions = np.arange(n) % 2
    got = select(graph, scores, partitions=partitions)
    assert got.rounds > n / 2  # every step crosses the border
    assert got.selection_score.tolist() == naive_d2(graph, scores)[1]


def test_partitions_that_disagree_about_an_edge_are_refused():
    empty, one = np.empty(0, np.int64), np.ones(1, np.float32)
    left = GraphPartition(0, np.array([0]), np.array([0, 1]), node_id(1, np.array([0])), one, to_fixed([1]))
    right = GraphPartition(1, np.array([1]), np.array([0, 0]), empty, np.empty(0, np.float32), to_fixed([1]))
    with pytest.raises(UserError, match="not symmetric between partitions 0 and 1"):
        run_rounds([left, right])


def test_wrong_labels_are_refused():
    graph = graph_from_edges(2, {(0, 1): 1.0})
    for labels in ([0], [0.5, 1.0], [[0, 1]]):
        with pytest.raises(UserError, match="partitions"):
            selection_scores(graph, [1, 1], partitions=labels)
