"""A row's lists are those an obvious search in two levels finds, and nearly always the nearest of all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.knn.codes import encode
from d2prune.knn.list_tree import ListTree, count_candidates, count_cells
from d2prune.knn.probes import tune_nprobe
from d2prune.knn.quantiser import Quantiser, train
from tests.knn.rows import rows_with_ties


def two_levels():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, 16)) * 2
    rows = (centres[rng.integers(0, 60, 4000)] + rng.normal(size=(4000, 16))).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows[:900], rows


def nearest_first(code, codes, n_best):
    """Numbers of the nearest codes; ties to the lower number."""
    sq_distances = ((codes.astype(int) - code.astype(int)) ** 2).sum(axis=1)
    return np.argsort(sq_distances, kind="stable")[:n_best]


def obvious_lists(centroids, cells, row, nprobe):
    codes, (row_code,) = encode(centroids), encode(row[None])
    n_home = round(5 * np.sqrt(len(codes)))
    (cell,) = nearest_first(row_code, encode(cells), 1)
    candidates = nearest_first(encode(cells)[cell], codes, max(n_home, count_candidates(len(codes), nprobe)))
    home = candidates[:n_home][nearest_first(row_code, codes[candidates[:n_home]], 1)[0]]
    others = candidates[candidates != home]
    return [home, *others[nearest_first(row_code, codes[others], nprobe - 1)]]


@given(
    st.integers(2, 90),
    st.integers(1, 20),
    st.sampled_from(["lattice", "normal", "jitter"]),
    st.integers(0, 2**32 - 1),
    st.data(),
)
@settings(max_examples=10, deadline=None)
def test_equals_an_obvious_search(nlist, n_dims, kind, seed, data):
    rng = np.random.default_rng(seed)
    centroids = rows_with_ties(rng, nlist, n_dims, kind) / np.float32(4)
    rows = rows_with_ties(rng, 5, n_dims, kind) / np.float32(4)
    cells = centroids[rng.permutation(nlist)[: count_cells(nlist)]]
    nprobe = data.draw(st.integers(1, nlist))
    found = ListTree(centroids, cells).find_lists(rows, nprobe)
    assert found.tolist() == [obvious_lists(centroids, cells, row, nprobe) for row in rows]


def test_fewer_probes_are_the_first_of_more_and_no_batch_or_thread_changes_them():
    centroids, rows = two_levels()
    tree = Quantiser(centroids, flat_lists=100)
    many = tree.find_lists(rows, 40, threads=2)
    assert all(len(set(lists)) == 40 for lists in many[:100].tolist())
    for nprobe in (1, 2, 17):
        assert (Quantiser(centroids, flat_lists=100).find_lists(rows, nprobe) == many[:, :nprobe]).all()
    parts = [tree.find_lists(rows[start : start + 77].copy(), 40) for start in range(0, 4000, 77)]
    assert np.concatenate(parts).tobytes() == many.tobytes()


def test_two_levels_agree_with_one_nearly_always():
    centroids, rows = two_levels()
    flat, deep = (Quantiser(centroids, flat_lists=limit) for limit in (10**6, 100))
    assert (flat.find_lists(rows, 1) == deep.find_lists(rows, 1)).mean() > 0.95
    both = [
        len(set(one) & set(other))
        for one, other in zip(flat.find_lists(rows, 10), deep.find_lists(rows, 10), strict=True)
    ]
    assert np.mean(both) > 9.5
    top = deep.nearest(rows[:50], 3)
    expected = ((rows[:50, None].astype(float) - centroids[top.positions]) ** 2).sum(axis=2)
    np.testing.assert_allclose(top.sq_distances, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("nlist", "nprobe", "candidates"),
    [(300, 1, 300), (3_000, 32, 768), (3_000, 33, 1_536), (10**6, 64, 12_000)],
)
def test_candidates_grow_with_lists_and_in_steps_of_probes(nlist, nprobe, candidates):
    assert count_candidates(nlist, nprobe) == candidates


def test_a_target_that_needs_all_lists_is_reached():
    centroids, rows = two_levels()
    # Random rows as true neighbours: only a visit to most lists finds them.
    true = np.random.default_rng(0).integers(0, len(rows), (200, 5))
    quantiser = Quantiser(centroids, flat_lists=100)
    assert tune_nprobe(quantiser, rows[:200], true, rows.__getitem__, 0.99, 1) > 700


class OfSteps:
    """A quantiser that finds the list of all neighbours, 7, only in the second step of probes."""

    centroids = np.zeros((900, 2), np.float32)

    def find_lists(self, rows, nprobe, threads):
        lists = np.delete(np.arange(900), 7)
        of_sample = np.insert(lists, 9 if nprobe > 32 else 700, 7)[:nprobe]
        of_others = np.concatenate([[7], lists[lists > 100]])[:nprobe]
        return np.where(rows[:, :1] == 0, of_sample, of_others)


def test_a_later_step_of_probes_gives_no_nprobe_of_an_earlier_one():
    rows = np.zeros((200, 2), np.float32)
    true = np.full((200, 5), 3)
    assert tune_nprobe(OfSteps(), rows, true, lambda found: np.ones((len(found), 2)), 0.9, 1) == 33


def test_a_visit_of_either_row_counts():
    centroids, rows = two_levels()
    quantiser = Quantiser(centroids)
    visited = quantiser.find_lists(rows, 20)

    def meet(i, j, count):
        return visited[j, 0] in visited[i, :count] or visited[i, 0] in visited[j, :count]

    # Neighbours of which one side alone visits the other.
    true = np.array(
        [
            [j for j in range(len(rows)) if (visited[j, 0] in visited[i]) != (visited[i, 0] in visited[j])][
                :4
            ]
            for i in range(30)
        ]
    )
    nprobe = tune_nprobe(quantiser, rows[:30], true, rows.__getitem__, 1.0, 1)
    assert nprobe <= 20
    assert all(meet(i, j, nprobe) for i in range(30) for j in true[i])
    assert not all(meet(i, j, nprobe - 1) for i in range(30) for j in true[i])


def test_training_in_two_levels_gives_the_same_bits_on_any_number_of_threads(monkeypatch):
    monkeypatch.setattr("d2prune.knn.quantiser.FLAT_LISTS", 100)
    _, rows = two_levels()
    one = train(rows, 150, seed=1)
    assert one.tobytes() == train(rows, 150, seed=1, threads=3).tobytes()
    homes = Quantiser(one).find_lists(rows, 1)[:, 0]
    assert np.bincount(homes, minlength=150).max() < 30 * len(rows) / 150
