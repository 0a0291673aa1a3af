"""Fuzz tests: Hypothesis tests that run once, or for a chosen time in `make test` and `make fuzz`."""

import functools
import os
import time

import pytest

SECONDS_VARIABLE = "D2PRUNE_FUZZ_SECONDS"
"""Environment variable: seconds that all fuzz tests take together; set by `make test` and `make fuzz`."""

tests_in_session = 1


def fuzz(test):
    """Mark a Hypothesis test; where a time is set, repeat it with new examples until its share is used."""

    # `make fuzz` looks nowhere else: to collect all tests takes longer than these.
    assert test.__module__.endswith(".test_fuzz"), test.__module__

    @pytest.mark.fuzz
    @functools.wraps(test)
    def repeat(*args, **kwargs):
        end = time.monotonic() + float(os.environ.get(SECONDS_VARIABLE, 0)) / tests_in_session
        test(*args, **kwargs)
        while time.monotonic() < end:
            test(*args, **kwargs)

    return repeat
