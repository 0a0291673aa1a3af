"""The permutation that plants mismatches in the bundled pool."""

import numpy as np
import pytest

from tools.make_pool import permute_across_groups


@pytest.mark.parametrize("seed", range(5))
def test_permutation_maps_every_row_to_another_group(seed):
    groups = np.array([0] * 9 + [1] * 5 + list(range(2, 8)))
    order = permute_across_groups(groups, np.random.default_rng(seed))
    assert sorted(order) == list(range(len(groups)))
    assert not (groups[order] == groups).any()
