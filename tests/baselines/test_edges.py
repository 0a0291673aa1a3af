"""Edge cases of D2 and every baseline: one sample, equal scores, one class."""

import numpy as np
import pytest

from d2prune.baselines import by_diversity, by_score
from d2prune.baselines.order import first
from d2prune.d2.coreset import d2_prune
from d2prune.errors import UserError
from d2prune.knn.in_memory import knn_graph

ORDERS = {
    "random": lambda rows, score: by_score.random(len(rows)),
    "top_score": lambda rows, score: by_score.top_score(score),
    "forward": lambda rows, score: by_score.forward(knn_graph(rows, 2), score),
    "moderate": lambda rows, score: by_score.moderate(rows, np.zeros(len(rows), int)),
    "ccs": lambda rows, score: by_score.ccs(score),
    "k_center": lambda rows, score: by_diversity.k_center(rows),
    "herding": lambda rows, score: by_diversity.herding(rows),
    "facility_location": lambda rows, score: by_diversity.facility_location(knn_graph(rows, 2)),
    "info_max": lambda rows, score: by_diversity.info_max(knn_graph(rows, 2), score, 0.1),
    "semdedup": lambda rows, score: by_diversity.semdedup(rows, 1, score)[0],
    "d2": lambda rows, score: (
        d2_prune(rows, score, 1.0, n_neighbors=2, groups=np.zeros(len(rows), int), offset=1).indices
    ),
}


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("same_rows", [False, True])
@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("level", [0.0, 2.0])
def test_equal_scores_and_one_class_give_a_complete_order(name, same_rows, n, level):
    rows = (
        np.ones((n, 3), np.float32)
        if same_rows
        else np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    )
    order = ORDERS[name](rows, np.full(n, level))
    assert sorted(order.tolist()) == list(range(n))
    with pytest.raises(UserError, match=f"size is {n + 1}, expected 1 <= size <= {n}"):
        first(order, n + 1)


@pytest.mark.parametrize("name", ["k_center", "herding"])
def test_more_picks_than_samples_are_rejected(name):
    with pytest.raises(UserError, match="size is 3, expected 1 <= size <= 2"):
        getattr(by_diversity, name)(np.ones((2, 3), np.float32), 3)


def test_more_neighbours_than_samples_means_all_others():
    rows = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    got = d2_prune(rows, np.arange(6.0), 0.5, n_neighbors=20).indices
    assert np.array_equal(got, d2_prune(rows, np.arange(6.0), 0.5, n_neighbors=5).indices)
