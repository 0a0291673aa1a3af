"""Feature rows have unit norm and do not depend on their batch; degenerate rows are refused by number."""

import numpy as np
import pytest

from d2prune.errors import UserError
from d2prune.knn.features import DegenerateEmbeddingError, features, unit_rows
from tests.oracles_knn import unit_rows as oracle_unit_rows


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("n_dims", [1, 5, 16, 37])
def test_equals_the_documented_normalisation(dtype, n_dims):
    rows = np.random.default_rng(0).normal(size=(20, n_dims)).astype(dtype)
    assert (unit_rows(rows) == oracle_unit_rows(rows)).all()


def test_a_row_does_not_depend_on_its_batch_or_memory_layout():
    rows = np.random.default_rng(0).normal(size=(64, 48)).astype(np.float16)
    whole = unit_rows(rows)
    assert all((unit_rows(rows[n : n + 1])[0] == whole[n]).all() for n in range(64))
    assert (unit_rows(np.asfortranarray(rows)) == whole).all()


def test_image_and_text_are_normalised_each_then_together():
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(10, 8)).astype(np.float16), 9 * rng.normal(size=(10, 6)).astype(np.float16)
    both = features("image+text", image, text)
    assert both.shape == (10, 14) and both.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(both[:, :8], axis=1), np.sqrt(0.5), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, rtol=1e-6)
    assert (features("image", image, None) == unit_rows(image)).all()
    assert (features("text", None, text) == unit_rows(text)).all()


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_degenerate_row_is_refused_by_number(value):
    rows = np.ones((5, 3), np.float16)
    rows[3] = value
    with pytest.raises(DegenerateEmbeddingError, match="embedding of row 1003: found"):
        unit_rows(rows, first_row=1000)


@pytest.mark.parametrize(
    "bad", [np.ones(3, np.float32), np.ones((2, 0), np.float32), np.ones((2, 2), np.int64)]
)
def test_anything_but_a_floating_matrix_is_refused(bad):
    with pytest.raises(UserError, match="expected floating"):
        unit_rows(bad)


def test_a_missing_side_and_an_unknown_kind_are_refused():
    rows = np.ones((2, 2), np.float32)
    with pytest.raises(UserError, match="found no text embeddings"):
        features("image+text", rows, None)
    with pytest.raises(UserError, match="'pixels'"):
        features("pixels", rows, rows)
    with pytest.raises(UserError, match="found 2 of images and 1 of texts"):
        features("image+text", rows, rows[:1])
