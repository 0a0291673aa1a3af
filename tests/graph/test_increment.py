"""A graph that is built from the one before equals a full build with the same quantiser, byte for byte."""

import itertools
import tempfile
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.graph.previous import match_parts
from tests.graph.nights import IN_STEPS, build_full, build_night, graph_files, random_rows
from tests.graph.pools import PARAMS

SMALL = replace(PARAMS, nlist=12, nprobe=3)


def first_pool(rng, n_shards=5):
    centres = rng.normal(size=(8, 6))
    return centres, {
        f"{2 * n:03d}": random_rows(rng, centres, int(rng.integers(8, 40))) for n in range(n_shards)
    }


def change(rng, centres, shards, additions, removals, replacements):
    """Add shards anywhere in the order, remove some, replace the content of some."""
    shards = dict(shards)
    pool = np.concatenate(list(shards.values()))
    names = rng.permutation(list(shards)).tolist()
    for name in names[:removals]:
        if len(shards) > 1:
            del shards[name]
    for name in names[removals : removals + replacements]:
        shards[name] = random_rows(rng, centres, int(rng.integers(0, 20)), pool)
    for _ in range(additions):
        shards[f"{rng.integers(0, 1000):03d}x"] = random_rows(rng, centres, int(rng.integers(1, 20)), pool)
    return dict(sorted(shards.items()))


nights = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=4)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**16), nights=nights, partitions=st.integers(1, 4))
def test_any_sequence_of_changes_gives_the_graph_of_a_full_build(seed, nights, partitions):
    rng = np.random.default_rng(seed)
    centres, shards = first_pool(rng)
    layout = replace(IN_STEPS, partitions=partitions)
    with tempfile.TemporaryDirectory() as work:
        latest = build_night(f"{work}/chain", shards, SMALL, layout=layout)
        trained = latest.facts["quantiser"]
        for number, counts in enumerate(nights):
            shards = change(rng, centres, shards, *counts)
            latest = build_night(f"{work}/chain", shards, SMALL, trained, latest.fingerprint, layout)
            full = build_full(f"{work}/{number}", shards, SMALL, f"{work}/chain", trained)
            assert graph_files(f"{work}/chain", latest) == graph_files(f"{work}/{number}", full)


@settings(max_examples=60, deadline=None)
@given(
    before=st.lists(st.sampled_from("abcde"), max_size=8), now=st.lists(st.sampled_from("abcde"), max_size=8)
)
def test_parts_are_matched_in_increasing_order(before, now):
    matches = match_parts(before, now)
    found = [(number, part) for part, number in enumerate(matches) if number >= 0]
    assert all(before[number] == now[part] for number, part in found)
    assert all(one[0] < other[0] for one, other in itertools.pairwise(found))
    if before == now:
        assert matches == list(range(len(now)))
