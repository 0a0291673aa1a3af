"""`d2_prune` from embeddings to coreset, on small pools."""

import doctest

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from d2prune import combine_embeddings
from d2prune.d2 import coreset
from d2prune.d2.api import selection_scores
from d2prune.d2.coreset import DROPPED, d2_prune
from d2prune.errors import UserError
from d2prune.knn.features import features, unit_rows
from d2prune.knn.in_memory import knn_graph
from d2prune.scores.column import shift
from tests.oracles import naive_d2


@pytest.fixture
def pool():
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(8, 6))
    x = (centres[rng.integers(0, 8, 120)] + 0.2 * rng.normal(size=(120, 6))).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True), rng.random(120)


def test_docstring_example_runs():
    failures, tests = doctest.testmod(coreset)
    assert (failures, tests > 3) == (0, True)


def test_coreset_equals_the_greedy_algorithm_of_the_paper(pool):
    x, difficulty = pool
    got = d2_prune(x, difficulty, fraction=0.3, n_neighbors=5, gamma_forward=1.0, gamma_reverse=0.5, offset=0)
    _, t, order, suppressed_by, _ = naive_d2(knn_graph(x, 5), difficulty, 1.0, 0.5)
    assert got.selection_score.tolist() == t
    assert got.suppressed_by.tolist() == suppressed_by
    assert got.indices.tolist() == sorted(range(120), key=lambda i: (-t[i], i))[:36]
    assert set(got.indices.tolist()) == set(order[:36])


def test_coreset_of_a_smaller_fraction_is_a_prefix(pool):
    x, difficulty = pool
    large = d2_prune(x, difficulty, fraction=0.5).indices
    for fraction in (0.1, 0.25):
        small = d2_prune(x, difficulty, fraction=fraction).indices
        assert (large[: len(small)] == small).all()


def test_groups_and_dropped_samples(pool):
    x, difficulty = pool
    labels = np.arange(120) % 3
    aum = np.arange(120)[::-1]
    got = d2_prune(x, difficulty, fraction=0.5, groups=labels, drop_score=aum, drop_fraction=0.25)
    assert len(got.indices) == 60
    assert got.indices.max() < 90  # the last 30 have the lowest margin
    assert np.bincount(labels[got.indices]).tolist() == [20, 20, 20]
    assert (got.selection_score[90:] == DROPPED).all() and (got.selection_score[:90] > DROPPED).all()
    alone = d2_prune(x[:90], difficulty[:90], fraction=0.5)
    assert (alone.selection_score == got.selection_score[:90]).all()
    assert (alone.suppressed_by == got.suppressed_by[:90]).all()


def test_offset_is_added_and_recorded(pool):
    x, difficulty = pool
    lowest = float((difficulty - 7).min())
    auto = d2_prune(x, difficulty - 7, fraction=0.3)
    given = d2_prune(x, difficulty - 7, fraction=0.3, offset=-lowest)
    assert auto.offset == given.offset == -lowest > 6
    assert (given.selection_score == auto.selection_score).all()
    none = d2_prune(x, difficulty, 0.3, offset=0)
    assert none.offset == 0
    assert (none.selection_score == selection_scores(knn_graph(x, 5), difficulty)).all()


def test_offset_has_the_meaning_of_a_run(pool):
    """Of float32 scores, as a run stores them, the difficulty has the bits of a run."""
    x, score = pool[0], (pool[1] * 3 - 2).astype(np.float32)
    for offset, added in (("auto", -float(score.min())), (1.5, 1.5)):
        expected = selection_scores(knn_graph(x, 5), shift(score, added))
        assert (d2_prune(x, score, 0.3, offset=offset).selection_score == expected).all()


def test_offset_that_leaves_no_difficulty_is_a_warning(pool):
    x, difficulty = pool
    with pytest.warns(UserWarning, match="every score plus the offset"):
        d2_prune(x, difficulty, offset=-5)


def test_invalid_arguments_are_rejected(pool):
    x, difficulty = pool
    with pytest.raises(UserError, match="embeddings"):
        d2_prune(x[0], difficulty)
    with pytest.raises(UserError, match="difficulty: found"):
        d2_prune(x, difficulty[:5])
    with pytest.raises(UserError, match="groups: found"):
        d2_prune(x, difficulty, groups=[1])
    with pytest.raises(UserError, match="drop_score: found None"):
        d2_prune(x, difficulty, drop_fraction=0.1)
    with pytest.raises(UserError, match="at most the 12"):
        d2_prune(x, difficulty, fraction=0.3, drop_score=difficulty, drop_fraction=0.9)


def test_budget_is_a_fraction_or_a_size(pool):
    x, difficulty = pool
    ranked = d2_prune(x, difficulty)
    assert len(ranked) == 36 and repr(ranked) == f"Coreset(36 of 120 samples, offset={ranked.offset:g})"
    assert (d2_prune(x, difficulty, size=36).indices == ranked.indices).all()
    assert (d2_prune(x, difficulty, size=np.int64(120)).mask).all()
    for arguments, message in (
        ({"fraction": 0.1, "size": 3}, "found fraction 0.1 and size 3"),
        ({"size": 0}, "size: found 0"),
        ({"size": 121}, "size: found 121; expected a whole number, 1 to 120"),
        ({"size": 2.0}, "size: found 2.0"),
    ):
        with pytest.raises(UserError, match=message):
            d2_prune(x, difficulty, **arguments)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.3, 0.77, 1.0])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("dropped", [False, True])
def test_take_is_the_coreset_of_that_fraction(pool, fraction, grouped, dropped):
    x, difficulty = pool
    options = {"groups": np.arange(120) % 7} if grouped else {}
    if dropped:
        options |= {"drop_score": difficulty, "drop_fraction": 0.2}
        fraction = min(fraction, 0.8)
    taken = d2_prune(x, difficulty, 0.25, **options).take(fraction)
    whole = d2_prune(x, difficulty, fraction, **options)
    assert (taken.indices == whole.indices).all() and taken.mask.sum() == len(whole)
    assert (taken.take(size=len(whole)).indices == whole.indices).all()
    with pytest.raises(UserError, match="expected one of them"):
        taken.take()


def test_mask_and_float_scores(pool):
    x, difficulty = pool
    got = d2_prune(x, difficulty, 0.5, drop_score=difficulty, drop_fraction=0.25)
    assert np.flatnonzero(got.mask).tolist() == sorted(got.indices.tolist())
    assert got.scores.dtype == np.float64
    dropped = got.selection_score == DROPPED
    assert (got.scores[dropped] == -np.inf).all() and dropped.sum() == 30
    assert (got.scores[~dropped] * 2.0**40 == got.selection_score[~dropped]).all()


def test_ready_graph_gives_the_coreset_of_its_embeddings(pool):
    x, difficulty = pool
    ready, built = d2_prune(knn_graph(x, 4), difficulty), d2_prune(x, difficulty, n_neighbors=4)
    assert (ready.selection_score == built.selection_score).all() and (ready.indices == built.indices).all()
    for arguments in ({"target_recall": 0.9}, {"drop_score": difficulty, "drop_fraction": 0.5}):
        with pytest.raises(UserError, match="found it with a ready graph"):
            d2_prune(knn_graph(x, 4), difficulty, 0.1, **arguments)


def as_tensor(array, **options):
    return torch.tensor(array, **options)


@pytest.mark.parametrize(
    "convert",
    [
        np.asfortranarray,
        lambda x: x.astype(x.dtype.newbyteorder()),
        lambda x: as_tensor(x, requires_grad=True),
        lambda x: as_tensor(x) * torch.ones(1, requires_grad=True),
        lambda x: as_tensor(x).to_sparse(),
        pd.DataFrame,
        lambda x: pl.DataFrame(x) if x.ndim == 2 else pl.Series(x),
        lambda x: pl.Series(x.tolist(), dtype=pl.List(pl.Float64)) if x.ndim == 2 else pl.Series(x),
        lambda x: pa.table({f"c{i}": x[:, i] for i in range(x.shape[1])}) if x.ndim == 2 else pa.array(x),
        lambda x: x.tolist(),
    ],
)
def test_every_container_gives_the_same_coreset(pool, convert):
    x, difficulty = pool[0].astype(np.float64), pool[1]
    expected = d2_prune(x, difficulty)
    scores = convert(difficulty)
    got = d2_prune(convert(x), scores[0] if isinstance(scores, pd.DataFrame) else scores)
    assert (got.selection_score == expected.selection_score).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int8", "int32"])
def test_tensors_of_every_dtype(pool, dtype):
    rows = as_tensor(pool[0] * 20).to(getattr(torch, dtype))
    expected = d2_prune(rows.float().numpy() if dtype == "bfloat16" else rows.numpy(), pool[1])
    got = d2_prune(rows, as_tensor(pool[1]))
    assert (got.selection_score == expected.selection_score).all()


def test_equal_scores_leave_the_choice_to_diversity():
    """Two copies of each of three directions: with equal scores, one of each is kept."""
    rows = np.repeat(np.eye(3, dtype=np.float32), 2, axis=0)
    for constant in (-3.0, 0.0, 7.0, np.float32(0.1)):
        got = d2_prune(rows, np.full(6, constant), 0.5, n_neighbors=1, gamma_reverse=1.0)
        assert sorted(got.indices.tolist()) == [0, 2, 4] and got.offset == 1 - float(constant)


@pytest.mark.parametrize("dims", [(4, 4), (4, 9)])
def test_combined_embeddings_are_the_features_of_a_run(dims):
    rng = np.random.default_rng(2)
    image, text = (rng.normal(size=(30, d)).astype(np.float32) * 5 for d in dims)
    rows = combine_embeddings(as_tensor(image), text.tolist())
    assert rows.tobytes() == features("image+text", image, text).tobytes()
    of_sides = [((unit_rows(side)[0] - unit_rows(side)[1]) ** 2).sum() for side in (image, text)]
    assert ((rows[0] - rows[1]) ** 2).sum() == pytest.approx(np.mean(of_sides), rel=1e-5)
    with pytest.raises(UserError, match="text_emb"):
        combine_embeddings(image, text[0])
