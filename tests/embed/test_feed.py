"""A feed yields what the tar holds, in order, and never reads further ahead than its slots and bytes."""

import time
from concurrent.futures import Future

import numpy as np
import pytest

from d2prune.embed import feed as feed_module
from d2prune.embed.decode.decoder import DecodedSample
from d2prune.embed.feed import Feed, Ready
from d2prune.inputs.rejects import Reject
from d2prune.inputs.sample_id import SAMPLE_EXTENSIONS
from tests.embed.images import write_tar

SLOTS = 20


class Lane:
    """A lane that decodes each task immediately, or only when `decode` is called."""

    def __init__(self, eager=False):
        self.eager = eager
        self.pixels = np.zeros((SLOTS, 3), np.uint8)
        self.tasks = []

    def submit(self, samples):
        future = Future()
        self.tasks.append((samples, future))
        if self.eager:
            self.decode()
        return future

    def decode(self):
        """Decode the submitted tasks; keys with an x are rejected."""
        tasks, self.tasks = self.tasks, []
        for samples, future in tasks:
            future.set_result(
                [
                    Reject(one.key, "image-undecodable", "?")
                    if "x" in one.key
                    else DecodedSample(one.key, 0, 0, "", "", 1, 1, ())
                    for _, one in samples
                ]
            )


def open_feed(tmp_path, keys, lane, size=100):
    path = write_tar(tmp_path / "0.tar", [(f"{key}.jpg", bytes(size)) for key in keys])
    return Feed(path, lane, SAMPLE_EXTENSIONS, 1 << 20)


def settled(feed):
    """Return how many samples were read once the reader waits."""
    before = -1
    while before != feed.read or not feed.read:
        before = feed.read
        time.sleep(0.15)
    return before


def test_outcomes_come_in_tar_order_and_are_counted(tmp_path):
    keys = [f"{i}{'x' if i % 7 == 3 else ''}" for i in range(100)]
    items = []
    with open_feed(tmp_path, keys, Lane(eager=True)) as feed:
        for item in feed:
            items.append(item)
            # Rejects release their slots themselves; the caller releases those of samples.
            if isinstance(item, Ready):
                feed.release([item.slot])
    assert [item.sample.key if isinstance(item, Ready) else item.key for item in items] == keys
    assert [isinstance(item, Reject) for item in items] == ["x" in key for key in keys]
    assert feed.read == 100 and feed.bytes_read == (tmp_path / "0.tar").stat().st_size and feed.end_mark


def test_reading_waits_for_free_slots(tmp_path):
    lane = Lane()
    with open_feed(tmp_path, range(100), lane) as feed:
        # One more is read and waits for its slot.
        assert settled(feed) == SLOTS + 1
        assert sum(len(samples) for samples, _ in lane.tasks) == SLOTS
        lane.decode()
        assert settled(feed) == SLOTS + 1
        feed.release([3, 4])
        assert settled(feed) == SLOTS + 3


@pytest.mark.parametrize(("limit", "ahead"), [(1000, 3), (100, 1)])
def test_reading_waits_for_free_bytes(tmp_path, monkeypatch, limit, ahead):
    monkeypatch.setattr(feed_module, "_PREFETCH_BYTES", limit)
    lane = Lane()
    with open_feed(tmp_path, range(50), lane, size=300) as feed:
        assert settled(feed) == ahead + 1
        # The task is submitted although it is not full, since nothing else would free bytes.
        assert sum(len(samples) for samples, _ in lane.tasks) == ahead
        lane.decode()
        assert settled(feed) == 2 * ahead + 1


def test_leaving_early_stops_the_reading_and_waits_for_the_slots(tmp_path):
    lane = Lane()
    with pytest.raises(KeyError), open_feed(tmp_path, range(100), lane) as feed:
        settled(feed)
        raise KeyError
    assert not feed._thread.is_alive() and all(future.cancelled() for _, future in lane.tasks)


def test_missing_shard_raises(tmp_path):
    with (
        Feed(str(tmp_path / "none.tar"), Lane(), SAMPLE_EXTENSIONS, 1) as feed,
        pytest.raises(FileNotFoundError),
    ):
        list(feed)
