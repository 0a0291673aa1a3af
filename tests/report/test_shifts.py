from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.report.captions import word_codes
from d2prune.report.shifts import Shifts, certain_shifts, hosts
from tests.explore.conftest import HOSTILE

TEXTS = st.one_of(st.none(), st.sampled_from(list(HOSTILE.values())), st.text(max_size=40))
SIZES = st.one_of(st.none(), st.integers(0, 2**31 - 1))
ROWS = st.lists(st.tuples(TEXTS, SIZES, SIZES, TEXTS, st.booleans()), max_size=20)


def samples(rows):
    return pa.table(
        {
            "caption": pa.array([row[0] for row in rows], pa.string()),
            "width": pa.array([row[1] for row in rows], pa.int32()),
            "height": pa.array([row[2] for row in rows], pa.int32()),
            "shard": pa.array(["0.tar"] * len(rows)),
            "url": pa.array([row[3] for row in rows], pa.string()),
        }
    )


def kept(rows):
    return np.array([row[4] for row in rows], bool)


@settings(max_examples=30, deadline=None)
@given(ROWS, ROWS)
def test_parts_count_like_the_whole_for_any_text_and_size(one, other):
    whole, parts, second = (Shifts(["url"]) for _ in range(3))
    whole.add(samples(one + other), kept(one + other))
    parts.add(samples(one), kept(one))
    second.add(samples(other), kept(other))
    parts.merge(second)
    assert parts.properties() == whole.properties()
    assert (parts.samples, parts.kept) == (len(one + other), kept(one + other).sum())
    for name, counts in whole._counts.items():
        assert all(counts.kept[value] <= count for value, count in counts.samples.items())
        if name == "length":
            assert counts.samples.total() == len(one + other)


def test_a_property_that_decides_the_selection_comes_first_with_its_counts():
    rows = [("a red dog", 64, 64, f"https://me:pw@Shop.example:8/{i}", i % 3 == 0) for i in range(300)]
    rows += [("a blue cat", 64, 300, f"http://news.example/{i}", i % 3 != 0) for i in range(300)]
    shifts = Shifts(["url"])
    shifts.add(samples(rows), kept(rows))
    found = {item.name: item for item in shifts.properties()}
    assert set(found) == {"Words in captions", "Host of url", "Aspect ratio"}
    by_word = {value.value: (value.samples, value.kept) for value in found["Words in captions"].values}
    assert by_word == {"red": (300, 100), "dog": (300, 100), "blue": (300, 200), "cat": (300, 200)}
    assert {value.value for value in found["Host of url"].values} == {"shop.example", "news.example"}
    assert [value.value for value in found["Aspect ratio"].values] == ["1 to 1.2", "3 or more"]
    assert found["Host of url"].values[0].shift == pytest.approx(0.0727, abs=1e-3)


@given(st.integers(0, 500), st.integers(1, 500), st.floats(0, 1))
def test_a_shift_is_never_larger_than_the_difference_of_the_shares(count, samples, share):
    count = min(count, samples)
    shift, wide = certain_shifts(np.array([1, 10]) * count, np.array([1, 10]) * samples, share)
    difference = count / samples - share
    assert shift == 0 or np.sign(shift) == np.sign(difference)
    assert abs(shift) <= abs(difference) + 1e-12
    assert abs(wide) >= abs(shift) - 1e-12


@settings(max_examples=30, deadline=None)
@given(st.lists(TEXTS, max_size=12))
def test_words_count_once_per_caption(captions):
    row_W, code_W, names = word_codes(pa.chunked_array([pa.array(captions, pa.string())]))
    found = Counter(zip(row_W.tolist(), code_W.tolist(), strict=True))
    assert all(count == 1 for count in found.values())
    for row, code in found:
        assert names[code] in captions[row].lower()
        assert 3 <= len(names[code]) <= 24


def test_hosts():
    urls = ["https://User:pw@A.example:80/x?y#z", "s3://bucket/key", "no url", "http:///x", None]
    assert hosts(pa.chunked_array([urls])).to_pylist() == ["a.example", "bucket", None, None, None]
