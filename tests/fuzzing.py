"""How much Hypothesis tests try: fewer examples in `make quick`, and fuzz tests for a chosen time.

Fuzz tests run once, or for that time in `make test` and `make fuzz`.
"""

import functools
import os
import time

import hypothesis
import pytest

SECONDS_VARIABLE = "D2PRUNE_FUZZ_SECONDS"
"""Environment variable: seconds that all fuzz tests take together; set by `make test` and `make fuzz`."""

EXAMPLES_VARIABLE = "D2PRUNE_EXAMPLES"
"""Environment variable: the most examples that a property test tries; set by `make quick`."""

tests_in_session = 1


def limit_examples(test, most):
    """Let a test that Hypothesis runs try at most so many examples; other tests are left as they are."""
    # Hypothesis's plugin for pytest reads the settings of a test there as well.
    settings = getattr(test, "_hypothesis_internal_use_settings", None)
    if settings is not None and settings.max_examples > most:
        test._hypothesis_internal_use_settings = hypothesis.settings(settings, max_examples=most)


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
