"""Thresholds over parts keep the same samples as a sort of the whole pool."""

import numpy as np
import pyarrow as pa
import pytest

from d2prune.config.model import RunConfig
from d2prune.config.sections import SelectConfig
from d2prune.d2.budget import top
from d2prune.errors import UserError
from d2prune.parts.files import RANKS, SAMPLES
from d2prune.parts.reader import Parts
from d2prune.select.params import SelectParams
from d2prune.select.stage import STAGE
from d2prune.select.thresholds import find_thresholds
from d2prune.select.worker import SelectWorker, plan_select
from d2prune.store import artifacts, schemas

SIZES = (30, 0, 17, 53)


@pytest.fixture
def pool(tmp_path):
    """(parts, score, ranked, label of each sample): few distinct scores, so that ties cross parts."""
    rng = np.random.default_rng(0)
    n = sum(SIZES)
    score, ranked = rng.integers(-2, 6, n) << 40, rng.random(n) > 0.1
    label = rng.choice(["cat", "dog", "emu"], n, p=[0.6, 0.3, 0.1])
    units = {"embed": [], "rank": []}
    for part, stop in enumerate(np.cumsum(SIZES)):
        rows = slice(stop - SIZES[part], stop)
        size, zeros = SIZES[part], np.zeros(SIZES[part], np.int64)
        samples = pa.table(
            {
                "uid": [f"{i:032x}" for i in range(rows.start, rows.stop)],
                "shard": pa.array([str(part)] * size, pa.string()),
                "key": pa.array([f"{i}" for i in range(size)], pa.string()),
                "label": pa.array(label[rows].tolist(), pa.string()),
            }
        )
        ranks = pa.table(
            [zeros.astype(np.float32), ranked[rows], zeros, score[rows], zeros - 1, zeros],
            schema=schemas.RANKS,
        )
        suppressors = pa.table([pa.nulls(size, pa.string())], schema=schemas.SUPPRESSORS)
        units["embed"].append(artifacts.commit_unit(f"{tmp_path}/embed", f"{part}", {SAMPLES: samples}))
        files = {RANKS: ranks, "suppressors.parquet": suppressors}
        units["rank"].append(artifacts.commit_unit(f"{tmp_path}/rank", f"{part}", files))
    return Parts(str(tmp_path), units), units, score, ranked, label


def select(pool, tmp_path, params):
    """Positions that the workers keep."""
    parts, units, _, ranked, _ = pool
    thresholds = find_thresholds(parts, params, int(ranked.sum()))
    worker, kept = SelectWorker(parts, f"{tmp_path}/select"), []
    for unit in plan_select(units["rank"], thresholds, params.groups):
        receipt = worker(unit)
        table = artifacts.read_table(f"{tmp_path}/select", receipt, "decisions.parquet", ["kept"])
        kept += table["kept"].to_pylist()
    assert sum(kept) == thresholds.budget
    return np.flatnonzero(kept).tolist()


@pytest.mark.parametrize("groups", [None, "label"])
@pytest.mark.parametrize("size", [1, 20, 41])
def test_kept_samples_are_the_highest_scores(pool, tmp_path, size, groups):
    _, _, score, ranked, label = pool
    positions = np.flatnonzero(ranked)
    expected = positions[top(score[ranked], size, label[ranked] if groups else None)]
    assert select(pool, tmp_path, SelectParams(None, size, None, groups)) == sorted(expected.tolist())


def test_fraction_is_of_all_samples(pool, tmp_path):
    assert len(select(pool, tmp_path, SelectParams(0.3, None, None, None))) == 30


def test_minimum_score_keeps_every_sample_that_reaches_it(pool, tmp_path):
    _, _, score, ranked, _ = pool
    expected = np.flatnonzero(ranked & (score >= 3 << 40)).tolist()
    assert select(pool, tmp_path, SelectParams(None, None, 3.0, None)) == expected


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.29, 0.3, 0.57, 0.999, 1.0])
def test_datacomps_cut_keeps_every_score_of_at_least_that_at_the_fraction(pool, tmp_path, fraction):
    _, _, score, ranked, _ = pool
    falling = -np.sort(-score[ranked])
    lowest = falling[min(int(len(score) * fraction), len(falling) - 1)]
    expected = np.flatnonzero(ranked & (score >= lowest)).tolist()
    assert select(pool, tmp_path, SelectParams(fraction, None, None, None, "datacomp")) == expected


@pytest.mark.parametrize("score", [0.7, 0.28, 0.1, -0.3])
def test_minimum_score_of_the_method_score_is_rounded_as_scores_are(score):
    """0.7 as float32 is below 0.7."""
    for method, expected in (("score", float(np.float32(score))), ("d2", score)):
        values = {"input": "a", "work_dir": "w", "output": "o"}
        config = RunConfig.parse(values | {"select": {"method": method, "min_score": score}}, "test")
        assert STAGE.params(config, None).min_score == expected


@pytest.mark.parametrize("budget", [{"size": 3}, {"min_score": 0.1}, {"fraction": 0.3, "groups": "shard"}])
def test_datacomps_cut_needs_a_fraction_of_the_pool(budget):
    with pytest.raises(ValueError, match="cut: datacomp needs a fraction; expected no size, min_score or"):
        SelectConfig(cut="datacomp", **budget)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (SelectParams(None, 100, None, None), r"select\.size is 100 samples, but only \d+ are ranked"),
        (
            SelectParams(1.0, None, None, None),
            r"select\.fraction 1\.0 is 100 samples, but only \d+ are ranked",
        ),
        (
            SelectParams(None, None, 9.0, None),
            r"select\.min_score 9\.0 keeps no sample: the highest score is 5",
        ),
        (SelectParams(0.1, None, None, "nothing"), r"select\.groups: there is no column 'nothing'"),
    ],
)
def test_budget_that_cannot_be_met_is_rejected(pool, tmp_path, params, message):
    with pytest.raises(UserError, match=message):
        select(pool, tmp_path, params)
