"""What the tests of the benchmarks share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    """As in a worker; torch's threads on small products wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
