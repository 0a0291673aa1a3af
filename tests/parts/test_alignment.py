"""Samples that two pools have in common, against a comparison of all uids."""

import tempfile
from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.parts import files
from d2prune.parts.alignment import Alignment
from d2prune.parts.reader import Parts
from d2prune.store import artifacts

# Few, so that they repeat; one is no hexadecimal digest.
UIDS = [f"{number:032x}" for number in range(7)] + ["short"]
shard = st.lists(st.integers(0, len(UIDS) - 1), max_size=6)
pool = st.dictionaries(st.sampled_from("abcd"), shard, max_size=4)


def make_pool(work, shards):
    """A pool of name -> uids; the number of a row in its shard is its score."""
    units = []
    for name, rows in sorted(shards.items()):
        table = pa.table(
            {"uid": pa.array([UIDS[row] for row in rows], pa.string()), "row": np.arange(len(rows))}
        )
        key = artifacts.unit_key(name, rows)
        units.append(artifacts.commit_unit(f"{work}/embed", key, {files.SAMPLES: table}))
    return Parts(work, {"embed": units})


@settings(max_examples=15)
@given(before=pool, now=pool, bucket_rows=st.sampled_from([1, 3, 100]))
def test_samples_are_matched_by_part_or_by_uid(before, now, bucket_rows):
    with tempfile.TemporaryDirectory() as work:
        one, other = make_pool(work, before), make_pool(work, now)
        found = Alignment(one, other, bucket_rows)
        gone_N, new_N = found.unmatched
        pairs = list(found.read(files.SAMPLES, ["uid", "row"]))
    uids = [[UIDS[row] for _, rows in sorted(shards.items()) for row in rows] for shards in (before, now)]
    matched = [(int(a), int(b)) for pair in pairs for a, b in zip(pair.before_M, pair.now_M, strict=True)]
    # Each sample is matched once, with one of its own uid, and columns belong to their samples.
    assert sorted(a for a, _ in matched) == np.flatnonzero(~gone_N).tolist()
    assert sorted(b for _, b in matched) == np.flatnonzero(~new_N).tolist()
    assert all(uids[0][a] == uids[1][b] for a, b in matched)
    for pair in pairs:
        assert pair.before["uid"].to_pylist() == [uids[0][a] for a in pair.before_M]
        assert pair.now["uid"].to_pylist() == [uids[1][b] for b in pair.now_M]
    # Equal shards are matched as they are; of the others, as many as possible.
    equal = {name for name in before.keys() & now.keys() if before[name] == now[name]}
    counts = [
        Counter(row for name, rows in shards.items() if name not in equal for row in rows)
        for shards in (before, now)
    ]
    same = sum(len(before[name]) for name in equal)
    assert len(matched) == same + (counts[0] & counts[1]).total()


def test_repeated_uids_are_matched_in_order(tmp_path):
    one, other = make_pool(str(tmp_path), {"a": [1, 2, 1]}), make_pool(str(tmp_path), {"b": [1, 1, 1, 2]})
    (pair,) = Alignment(one, other).read(files.SAMPLES, [])
    assert list(zip(pair.before_M.tolist(), pair.now_M.tolist(), strict=True)) == [(0, 0), (2, 1), (1, 3)]
