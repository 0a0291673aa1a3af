"""A destination reads its own records, in the order they were given, and detects a changed byte."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune import store
from d2prune.errors import InfrastructureError
from d2prune.stage import exchange

RECORD = np.dtype([("number", "<i8"), ("small", "<f2", (3,))])


@settings(deadline=None, max_examples=40)
@given(destinations=st.lists(st.integers(0, 4)), n=st.integers(5, 7), split=st.integers(0, 9))
def test_each_destination_reads_its_own_records(tmp_path_factory, destinations, n, split):
    records = np.zeros(len(destinations), RECORD)
    records["number"] = np.arange(len(destinations))
    url = str(tmp_path_factory.mktemp("exchange") / "file")
    to = np.array(destinations, np.int64)
    data = exchange.pack(records, to, n)
    assert exchange.pack_batches([(records[:split], to[:split]), (records[split:], to[split:])], n) == data
    store.write_bytes(url, data)
    for destination in range(n):
        expected = [number for number, goes in enumerate(destinations) if goes == destination]
        assert exchange.read(url, RECORD, destination)["number"].tolist() == expected
        assert exchange.read_concatenated([url, url], RECORD, destination)["number"].tolist() == 2 * expected


def test_a_changed_byte_is_detected(tmp_path):
    url = str(tmp_path / "file")
    data = bytearray(exchange.pack(np.ones(4, RECORD), np.array([0, 0, 1, 1]), 2))
    data[-1] ^= 1
    store.write_bytes(url, bytes(data))
    assert len(exchange.read(url, RECORD, 0)) == 2
    with pytest.raises(InfrastructureError, match="destination 1: found CRC-32"):
        exchange.read(url, RECORD, 1)
