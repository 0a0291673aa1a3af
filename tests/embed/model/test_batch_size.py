"""The batch size follows from rates alone, and does not change which samples are embedded."""

import dataclasses

import numpy as np
import pytest

from d2prune.embed import params as embed_params
from d2prune.embed.model.batch_size import BatchSizer, max_batch_size
from d2prune.inputs.shards import expand_input
from tests.embed.faulty_samples import good, tables, with_little_memory
from tests.embed.images import write_tar


def sizes(batch, seconds_of, count, memory=10**9):
    """Return the sizes of `count` batches on a device that takes `seconds_of(rows)` and holds `memory`."""
    found, fits = [], None
    for _ in range(count):
        rows = batch.size
        found.append(rows)
        if rows > memory:
            fits = rows // 2 if fits is None else fits
        batch.record(rows, seconds_of(rows), fits)
    return found


def test_size_doubles_while_the_rate_improves():
    # Below 64 rows a pass takes constant time: the device is not saturated.
    found = sizes(BatchSizer("auto", 1024), lambda rows: max(rows, 64) / 1000, 30)
    assert found == [16] * 3 + [32] * 3 + [64] * 3 + [128] * 3 + [64] * 18


def test_size_stops_at_the_limit_and_at_the_devices_memory():
    assert sizes(BatchSizer("auto", 100), lambda rows: 1.0, 20)[-1] == 100
    assert sizes(BatchSizer("auto", 8), lambda rows: 1.0, 2) == [8, 8]
    found = sizes(BatchSizer("auto", 1024), lambda rows: 1.0, 20, memory=100)
    assert found == [16] * 3 + [32] * 3 + [64] * 3 + [128] + [64] * 10


def test_the_first_batch_of_a_size_is_not_timed():
    seen = set()

    def seconds(rows):
        first = rows not in seen
        seen.add(rows)
        return 100.0 if first else 1.0

    assert sizes(BatchSizer("auto", 64), seconds, 10)[-1] == 64


def test_configured_size_never_changes():
    assert sizes(BatchSizer(48, 48), lambda rows: 1.0, 5, memory=10) == [48] * 5
    assert max_batch_size(48, "cuda") == 48
    assert max_batch_size("auto", "cpu") < max_batch_size("auto", "cuda")


@pytest.mark.parametrize("fits", [None, 20])
def test_auto_embeds_the_same_samples_as_a_fixed_size(setting, fits):
    pool, _, params, make_worker = setting
    members = [m for i in range(150) for m in good(f"{i}", i % 40)]
    write_tar(pool / "0.tar", [*members, ("junk.jpg", b"<svg/>"), ("junk.txt", b"a")])

    def embed(size):
        changed = dataclasses.replace(params, batch_size=size)
        folder = f"size-{size}"
        worker = make_worker(changed, folder=folder)
        tried = with_little_memory(worker._models.encoders[0], fits or 10**9)
        (unit,) = embed_params.plan(expand_input(str(pool)), changed)
        receipt = worker(unit)
        worker.close()
        return tried, receipt.counters, list(tables(str(pool.parent / folder), receipt))

    tried, counters, (samples, rejects, _) = embed("auto")
    _, _, (expected, expected_rejects, _) = embed(4)
    assert tried[:3] == [16] * 3 and max(tried) > 16
    assert rejects.equals(expected_rejects)
    assert samples.drop(["clip_score"]).equals(expected.drop(["clip_score"]))
    np.testing.assert_allclose(samples["clip_score"], expected["clip_score"], rtol=0, atol=1e-6)
    if fits is not None:
        # One batch of 32 did not fit and lost nothing; a second may have been formed before that was known.
        assert tried.count(32) == 1 and max(tried[tried.index(32) + 1 :]) == 16
        assert 1 <= counters["batch-cut"] <= 2
