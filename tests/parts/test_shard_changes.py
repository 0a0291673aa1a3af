"""Shards that came and went between two pools, from receipts alone."""

import pytest

from d2prune.parts.shard_changes import ShardChanges, compare_shards
from d2prune.store.artifacts import FileRecord, Receipt, unit_key


def tar(name, version, rows=10, params="model"):
    files = (FileRecord("samples.parquet", rows, 1, "x"),)
    key = unit_key(name, params, version)
    return Receipt(key, files, facts={"source": {"size": 1, "version": version}})


def part(name, version, rows=10):
    files = (FileRecord("samples.parquet", rows, 1, "x"),)
    return Receipt(unit_key(name, version), files, facts={"sources": [[name, 1, version]]})


A, B, C = tar("a", "1"), tar("b", "1"), tar("c", "1", 7)
LONG = "x" * 60
CASES = {
    "nothing": ([A, B], [A, B], (0, 0, 0, 2, 0, 0), "the same shards"),
    "new": ([A], [A, B, C], (2, 0, 0, 1, 17, 0), "2 shards new"),
    "removed": ([A, B], [B], (0, 1, 0, 1, 0, 10), "1 shard removed"),
    "replaced": ([A, B], [A, tar("b", "2", 3)], (0, 0, 1, 1, 3, 10), "1 shard replaced"),
    "all": ([A, B], [tar("a", "2"), C], (1, 1, 1, 0, 17, 20), "1 shard new, 1 removed, 1 replaced"),
    "renamed": ([A], [tar("d", "1")], (1, 1, 0, 0, 10, 10), "1 shard new, 1 removed"),
    "other settings": (
        [A, B],
        [tar("a", "1", 9, "other"), tar("b", "1", 9, "other")],
        (0, 0, 0, 2, 0, 0),
        "",
    ),
    "tables": ([part("t-1of2", "1"), part("t-2of2", "1")], [part("t-1of2", "1")], (0, 1, 0, 1, 0, 10), ""),
    "empty": ([], [A], (1, 0, 0, 0, 10, 0), ""),
    # Names of which a key holds only the end.
    "long names": (
        [tar(f"1{LONG}", "1"), tar(f"2{LONG}", "1", 5)],
        [tar(f"2{LONG}", "1", 5)],
        (0, 1, 0, 1, 0, 5),
        "",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_shards_are_counted(case):
    before, now, counts, words = CASES[case]
    found = compare_shards(before, now)
    assert found == ShardChanges(*counts)
    assert not words or str(found) == words
    back = compare_shards(now, before)
    assert (back.new, back.removed, back.replaced, back.unchanged) == (counts[1], counts[0], *counts[2:4])
