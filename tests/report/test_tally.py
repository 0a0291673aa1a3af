import numpy as np
import pyarrow as pa
import pytest

from d2prune.report.tally import Extremes, Tally, bin_counts, bin_edges


def decisions(count, seed=0):
    rng = np.random.default_rng(seed)
    selection = rng.normal(size=count).round(1)
    reason = np.where(rng.random(count) < 0.1, "cut-off", np.where(selection > 0.5, "kept", "below-budget"))
    return pa.table(
        {
            "difficulty": rng.random(count).astype(np.float32),
            "selection_score": selection,
            "kept": reason == "kept",
            "reason": reason,
        }
    )


def tally_of(table, bounds, size=5, offset=0.0):
    tally = Tally(np.linspace(-0.5, 1, 11), np.linspace(-1, 1, 9), size, offset)
    for start, stop in zip([0, *bounds], [*bounds, table.num_rows], strict=True):
        tally.add(start, table.slice(start, stop - start))
    return tally


@pytest.mark.parametrize("bounds", [[], [1], [50, 50, 120], list(range(10, 200, 10))])
def test_counts_equal_naive_ones_for_any_split_into_parts(bounds):
    table = decisions(200)
    tally = tally_of(table, bounds)
    rows = table.to_pylist()
    kept = [row for row in rows if row["kept"]]
    assert (tally.samples, tally.kept) == (200, len(kept))
    assert tally.reasons["below-budget"] == sum(row["reason"] == "below-budget" for row in rows)
    assert tally.threshold == min(row["selection_score"] for row in kept)
    pool_mean, kept_mean = tally.mean_score()
    assert pool_mean == pytest.approx(np.mean([row["difficulty"] for row in rows]))
    assert kept_mean == pytest.approx(np.mean([row["difficulty"] for row in kept]))
    dropped = [(i, row) for i, row in enumerate(rows) if not row["kept"]]
    lowest = sorted(dropped, key=lambda item: (item[1]["difficulty"], item[0]))[:5]
    assert tally.lowest_dropped.positions.tolist() == [i for i, _ in lowest]


def test_histograms_include_every_ranked_sample():
    table = decisions(300)
    tally = tally_of(table, [100])
    difficulty, selection = tally.histogram("difficulty"), tally.histogram("selection_score")
    assert difficulty.kept.sum() == selection.kept.sum() == tally.kept
    assert difficulty.dropped.sum() == 300 - tally.kept
    assert selection.dropped.sum() == 300 - tally.kept - tally.reasons["cut-off"]


def test_the_offset_is_subtracted():
    table = decisions(50)
    plain, shifted = (
        tally_of(table, []).mean_score()[0],
        tally_of(table, [], offset=0.3).mean_score()[0],
    )
    assert shifted == pytest.approx(plain - 0.3)


def test_outliers_count_in_the_outer_bins_and_nan_nowhere():
    edges = np.array([0.0, 1.0, 2.0])
    assert bin_counts(np.array([-5, 0, 0.5, 1, 2, 99, np.nan]), edges).tolist() == [3, 3]


@pytest.mark.parametrize("values", [[], [np.nan], [3.0], [3.0, 3.0], [-1, 0, 5]])
def test_edges_ascend_for_any_values(values):
    edges = bin_edges(np.array(values, dtype=np.float64))
    assert len(edges) == 41
    assert (np.diff(edges) > 0).all()


def test_extremes_break_ties_by_position():
    extremes = Extremes(2)
    extremes.add(np.array([1.0, 2.0]), np.array([8, 9]))
    extremes.add(np.array([2.0, np.nan, 2.0]), np.array([3, 4, 5]))
    assert extremes.positions.tolist() == [3, 5]
