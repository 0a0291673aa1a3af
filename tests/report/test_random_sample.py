import numpy as np
import pytest

from d2prune.parts.reader import Parts
from d2prune.report.random_sample import draw_positions
from d2prune.store import artifacts


def test_sample_touches_few_row_groups(run, monkeypatch):
    monkeypatch.setattr(artifacts, "ROWS_PER_GROUP", 16)
    spans = Parts(run.work_dir, {"embed": run.embed.units}).spans
    starts = np.array([0, 16, 32, 40, 56, 72, 80, 96, 112, 120])
    drawn = {
        tuple(np.unique(np.searchsorted(starts, draw_positions(spans, 1000, 2, seed), "right")))
        for seed in range(20)
    }
    assert all(len(found) == 2 for found in drawn) and len(drawn) > 5
    assert np.array_equal(draw_positions(spans, 1000, 99, 0), np.arange(130))


@pytest.mark.parametrize(
    ("size", "groups", "count"), [(1000, 99, 130), (20, 99, 20), (1000, 1, None), (0, 9, 0)]
)
def test_positions_are_distinct_ascending_and_deterministic(run, size, groups, count):
    spans = Parts(run.work_dir, {"embed": run.embed.units}).spans
    found = draw_positions(spans, size, groups, seed=3)
    assert np.array_equal(found, draw_positions(spans, size, groups, seed=3))
    assert (np.diff(found) > 0).all()
    assert len(set(spans.part_of(found).tolist())) <= groups
    assert count is None or len(found) == count
