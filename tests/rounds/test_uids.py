"""Uids of suppressors: requests between partitions give what one table of all uids gives."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.parts.spans import Spans
from d2prune.rounds.uids import TargetUids, answer_requests, make_requests


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.data())
def test_every_partition_finds_what_one_table_of_uids_holds(sizes, data):
    owners = Spans.of_rows(sizes)
    uids = [f"uid{position}" for position in range(len(owners))]
    suppressor = np.array(
        data.draw(st.lists(st.integers(-1, len(uids) - 1), min_size=len(uids), max_size=len(uids))), np.int64
    )
    owned = [slice(lo, hi) for lo, hi in itertools.pairwise(owners.starts.tolist())]
    requests = [make_requests(suppressor[own], owners) for own in owned]
    assert all(set(request) <= {owner for owner, size in enumerate(sizes) if size} for request in requests)
    answers = [
        answer_requests(
            {source: request[owner] for source, request in enumerate(requests) if owner in request},
            pa.array(uids[own], pa.large_string()),
            own.start,
        )
        for owner, own in enumerate(owned)
    ]
    for member, own in enumerate(owned):
        received = {owner: answer[member] for owner, answer in enumerate(answers) if member in answer}
        found = TargetUids(suppressor[own], received)
        size = own.stop - own.start
        got = [
            *found.of_rows(slice(0, size // 2)).to_pylist(),
            *found.of_rows(slice(size // 2, size)).to_pylist(),
        ]
        assert got == [uids[position] if position >= 0 else None for position in suppressor[own]]


def test_each_position_is_requested_once_from_its_owner():
    requests = make_requests(np.array([7, -1, 2, 7, 4, 2]), Spans(np.array([0, 3, 3, 10])))
    assert {owner: position.tolist() for owner, position in requests.items()} == {0: [2], 2: [4, 7]}


def test_missing_answer_is_an_error():
    with pytest.raises(pa.ArrowIndexError):
        TargetUids(np.array([3, 8]), {0: pa.array(["a"], pa.large_string())}).of_rows(slice(0, 2))
