"""One partition: recovery from a checkpoint of any age, and messages that arrive twice or late."""

import pickle

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.d2.fixed_point import to_fixed
from d2prune.d2.messages import EMPTY_BATCH, MessageBatch
from d2prune.d2.rounds import dense_partitions, route_messages, split
from tests.graphs import problems
from tests.oracles import naive_d2


def collect_scores(parts, n):
    t = np.empty(n, np.int64)
    for part in parts:
        t[part.own_positions] = part.scores()
    return t.tolist()


@given(problems(), st.integers(2, 4), st.integers(0, 5), st.integers(0, 5), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_lost_partition_recovers_from_a_checkpoint_of_any_age(problem, n_parts, saved, lost, random):
    graph, scores = problem
    owner, n_parts = dense_partitions(
        [random.randrange(n_parts) for _ in range(graph.n_nodes)], graph.n_nodes
    )
    victim = random.randrange(n_parts)
    parts = split(graph, owner, n_parts, to_fixed(scores), (1.0, 1.0))
    checkpoint = None
    boundaries = route_messages([part.boundary_nodes() for part in parts])
    sent = [part.start(batch) for part, batch in zip(parts, boundaries, strict=True)]
    for r in range(500):
        if not any(len(batch.keys) for batch in sent) and not any(part.remaining for part in parts):
            break
        if r == saved:
            checkpoint = pickle.loads(pickle.dumps(parts[victim].state()))
        inboxes = [batch.unpack() for batch in route_messages(sent)]
        if r == lost:
            # Messages in flight from and to the victim are lost with it.
            inboxes = [{s: message for s, message in inbox.items() if s != victim} for inbox in inboxes]
            fresh = split(graph, owner, n_parts, to_fixed(scores), (1.0, 1.0))[victim]
            parts[victim] = fresh
            boundary = route_messages([part.boundary_nodes() for part in parts])[victim]
            if checkpoint is None:
                first = fresh.start(boundary)
            else:
                fresh.restore(checkpoint)
                first = fresh.step(EMPTY_BATCH)
            inboxes[victim] = {
                part.partition: part.resend(victim) for part in parts if part.partition in boundary.partitions
            }
            for destination, message in first.unpack().items():
                inboxes[destination][victim] = message
        sent = [part.step(MessageBatch.pack(inbox)) for part, inbox in zip(parts, inboxes, strict=True)]
    assert collect_scores(parts, graph.n_nodes) == naive_d2(graph, scores)[1]
    assert all(part.remaining == 0 for part in parts)


@given(problems(), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_messages_may_arrive_twice_and_late(problem, random):
    graph, scores = problem
    owner, n_parts = dense_partitions([random.randrange(3) for _ in range(graph.n_nodes)], graph.n_nodes)
    parts = split(graph, owner, n_parts, to_fixed(scores), (1.0, 1.0))
    boundaries = route_messages([part.boundary_nodes() for part in parts])
    in_flight = [
        (part.partition, destination, message)
        for part, batch in zip(parts, boundaries, strict=True)
        for destination, message in part.start(batch).unpack().items()
    ]
    while in_flight:
        source, destination, message = in_flight.pop(random.randrange(len(in_flight)))
        if random.random() < 0.3:
            in_flight.append((source, destination, message))
        replies = parts[destination].step(MessageBatch.pack({source: message})).unpack()
        in_flight += [(destination, to, reply) for to, reply in replies.items()]
    assert collect_scores(parts, graph.n_nodes) == naive_d2(graph, scores)[1]
