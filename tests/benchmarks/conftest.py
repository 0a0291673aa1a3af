"""Fixtures of the benchmark tests."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    """Use one thread, as the workers do; torch's threads are slow if the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
