"""Which samples a subset file selects, against a loop over its entries."""

from collections import Counter

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.output import subset
from d2prune.reshard.matching import select_rows
from d2prune.reshard.shard_index import SCHEMA

# Six uids: three first halves, each with two second halves.
UIDS = st.integers(0, 5).map(lambda value: value * (2**64 + 1) // 2)


@settings(deadline=None)
@given(st.lists(UIDS), st.lists(st.lists(UIDS, max_size=6), max_size=4))
def test_selected_rows_equal_a_loop_over_the_entries(entries, parts):
    texts = [[f"{value:032x}" for value in part] for part in parts]
    wanted = subset.encode([f"{value:032x}" for value in entries])
    wanted = wanted[subset.order(wanted)]
    indexes = []
    for part, uids in enumerate(texts):
        rows = [(uid, str(part), str(i), i, 1) for i, uid in enumerate(uids)]
        columns = {name: [row[c] for row in rows] for c, name in enumerate(SCHEMA.names)}
        indexes.append(pa.table(columns, schema=SCHEMA))
    found = select_rows(wanted, indexes)
    holders = {}
    for part, uids in enumerate(texts):
        for i, uid in enumerate(uids):
            holders.setdefault(uid, []).append((part, i))
    expected = []
    for uid, count in Counter(subset.decode(wanted)).items():
        if uid in holders:
            expected += [holders[uid][i % len(holders[uid])] for i in range(count)]
    assert list(zip(found["part"].to_pylist(), map(int, found["key"].to_pylist()), strict=True)) == sorted(
        expected
    )
