"""`make quick` tries fewer examples of each property."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzzing import limit_examples


@pytest.mark.parametrize(("wanted", "most", "tried"), [(40, 5, 5), (4, 5, 4)])
def test_a_limit_only_lowers_the_number_of_examples(wanted, most, tried):
    seen = []

    @settings(max_examples=wanted, database=None)
    @given(st.integers())
    def prop(number):
        seen.append(number)

    limit_examples(prop, most)
    prop()
    assert len(seen) == tried


def test_a_test_without_examples_stays_as_it_is():
    def test():
        pass

    limit_examples(test, 1)
    limit_examples(None, 1)
    assert not vars(test)
