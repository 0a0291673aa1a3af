"""Streams return the bytes in order and prefetch as many blocks as configured."""

import io
import random
import time
from functools import partial

import numpy as np
import pytest

from d2prune import store
from d2prune.errors import InfrastructureError
from d2prune.store import reading
from d2prune.store.read_ahead import ReadAhead

DATA = np.random.default_rng(0).bytes(100_123)


@pytest.fixture
def remote():
    url = f"memory://read-ahead/{random.random()}.tar"
    store.write_bytes(url, DATA)
    yield url
    store.delete([url])


def test_the_bytes_are_those_of_the_object(remote):
    sizes = random.Random(0)
    with io.BufferedReader(ReadAhead(partial(store.read_range, remote), len(DATA), 1000, 3)) as stream:
        parts = [stream.read(sizes.randint(1, 5000)) for _ in range(20)]
        assert b"".join([*parts, stream.read()]) == DATA
        assert stream.read(10) == b""


def test_no_more_blocks_than_configured_are_prefetched():
    asked = []

    def read(offset, size):
        asked.append(offset)
        return DATA[offset : offset + size]

    def requested(expected):
        """Wait for the expected requests, then a little longer for others."""
        deadline = time.monotonic() + 30
        while sorted(asked) != expected and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        return sorted(asked) == expected

    with ReadAhead(read, len(DATA), block=1000, ahead=3) as stream:
        assert stream.read(10) == DATA[:10]
        assert requested([0, 1000, 2000, 3000])
        assert stream.read(5000) == DATA[10:1000]
        assert requested([0, 1000, 2000, 3000])
        assert stream.read(1) == DATA[1000:1001]
        assert requested([0, 1000, 2000, 3000, 4000])


def test_a_local_file_is_read(tmp_path):
    (tmp_path / "a").write_bytes(DATA)
    with store.open_read(str(tmp_path / "a")) as stream:
        assert stream.read() == DATA


def test_an_error_of_a_range_is_raised_by_the_read(remote, monkeypatch):
    def broken(url, at, size):
        raise InfrastructureError("connection reset")

    monkeypatch.setattr(reading, "read_range", broken)
    with store.open_read(remote) as stream, pytest.raises(InfrastructureError, match="reset"):
        stream.read(1)


def test_a_missing_object_is_not_found():
    with pytest.raises(FileNotFoundError), store.open_read("memory://read-ahead/none.tar"):
        pass
