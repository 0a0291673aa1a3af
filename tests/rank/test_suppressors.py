"""Who suppressed whom, by name: questions and answers between owners give what one table of all uids gives."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.rank.suppressors import Suppressors, answers, questions


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.data())
def test_every_owner_names_what_one_table_of_uids_names(sizes, data):
    starts = np.cumsum([0, *sizes])
    uids = [f"uid{position}" for position in range(starts[-1])]
    suppressor = np.array(
        data.draw(st.lists(st.integers(-1, len(uids) - 1), min_size=len(uids), max_size=len(uids))), np.int64
    )
    owned = [slice(lo, hi) for lo, hi in itertools.pairwise(starts)]
    asked = [questions(suppressor[own], starts) for own in owned]
    assert all(set(question) <= {owner for owner, size in enumerate(sizes) if size} for question in asked)
    told = [
        answers(
            {asker: question[owner] for asker, question in enumerate(asked) if owner in question},
            pa.array(uids[own], pa.large_string()),
            int(starts[owner]),
        )
        for owner, own in enumerate(owned)
    ]
    for asker, own in enumerate(owned):
        names = Suppressors(
            suppressor[own], {owner: letters[asker] for owner, letters in enumerate(told) if asker in letters}
        )
        size = own.stop - own.start
        got = [*names.uids(slice(0, size // 2)).to_pylist(), *names.uids(slice(size // 2, size)).to_pylist()]
        assert got == [uids[position] if position >= 0 else None for position in suppressor[own]]


def test_a_position_is_asked_for_once_and_of_its_owner():
    asked = questions(np.array([7, -1, 2, 7, 4, 2]), np.array([0, 3, 3, 10]))
    assert {owner: position.tolist() for owner, position in asked.items()} == {0: [2], 2: [4, 7]}


def test_an_answer_that_never_came_is_not_guessed():
    with pytest.raises(pa.ArrowIndexError):
        Suppressors(np.array([3, 8]), {0: pa.array(["a"], pa.large_string())}).uids(slice(0, 2))
