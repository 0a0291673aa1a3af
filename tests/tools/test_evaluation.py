"""The AUC that the demo model is evaluated by."""

import numpy as np
import pytest

from tools.evaluation import auc


@pytest.mark.parametrize(
    ("matched", "wrong", "expected"),
    [([2.0, 3.0], [0.0, 1.0], 1.0), ([0.0], [1.0], 0.0), ([1.0], [1.0], 0.5), ([0.0, 2.0], [1.0], 0.5)],
)
def test_auc_is_the_share_of_ordered_pairs(matched, wrong, expected):
    assert auc(np.array(matched), np.array(wrong)) == expected
