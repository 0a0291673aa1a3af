"""The streamed cut-off drops the samples that `drop_mask` drops."""

import itertools

import numpy as np
import pyarrow as pa
import pytest

from d2prune.d2.budget import drop_mask
from d2prune.graph.cut_off import find_cut_off
from d2prune.parts.reader import Parts
from d2prune.store import artifacts


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.34, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_equals_drop_mask(tmp_path, fraction, seed):
    rng = np.random.default_rng(seed)
    score = rng.choice(np.array([-1.5, -0.0, 0.0, 1e-40, 0.25, 3.0], np.float32), 50)
    bounds = [0, 13, 13, 20, 50]
    parts = [
        artifacts.commit_unit(
            str(tmp_path / "embed"), f"p{i}", {"samples.parquet": pa.table({"aum": score[start:stop]})}
        )
        for i, (start, stop) in enumerate(itertools.pairwise(bounds))
    ]
    pool = Parts(str(tmp_path), {"embed": parts})
    cut_off = find_cut_off(pool, "aum", fraction)
    masks = [cut_off.drop_mask(pool, i) for i in range(4)]
    assert np.concatenate(masks).tolist() == drop_mask(score, fraction).tolist()
