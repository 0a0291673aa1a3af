"""D2Pruner: scikit-learn's own checks, and the same coreset as d2_prune."""

import doctest
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import check_estimator

from d2prune import D2Pruner, d2_prune, selector
from d2prune.errors import ArgumentError

# Each is fitted to data that holds a row of zeros, which has no direction: d2_prune names it.
EXPECTED_FAILURES = {"check_estimators_dtypes": "fits a row of zeros, which cannot be normalised"}


def test_scikit_learn_accepts_it():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = check_estimator(D2Pruner(), on_fail=None, expected_failed_checks=EXPECTED_FAILURES)
    failed = {check["check_name"] for check in found if check["status"] == "failed"}
    xfailed = {check["check_name"] for check in found if check["status"] == "xfail"}
    assert failed == set() and xfailed == EXPECTED_FAILURES.keys()
    assert sum(check["status"] == "passed" for check in found) > 30


def test_docstring_example_runs():
    failures, tests = doctest.testmod(selector)
    assert (failures, tests > 2) == (0, True)


@pytest.mark.parametrize("options", [{}, {"fraction": 0.2}, {"size": 7}, {"gamma_reverse": 0.5, "offset": 2}])
def test_support_is_the_coreset(options):
    rng = np.random.default_rng(1)
    rows, difficulty, labels = rng.normal(size=(60, 5)), rng.normal(size=60), np.arange(60) % 3
    pruner = clone(D2Pruner(**options)).fit(rows, difficulty, groups=labels)
    expected = d2_prune(rows, difficulty, groups=labels, **options)
    assert (pruner.get_support() == expected.mask).all()
    assert pruner.get_support(indices=True).tolist() == sorted(expected.indices.tolist())
    frame = pd.DataFrame(rows, columns=list("abcde"))
    kept = D2Pruner(**options).fit_select(frame, pd.Series(difficulty), groups=labels)
    assert kept.index.tolist() == pruner.get_support(indices=True).tolist()


def test_errors_are_those_of_the_library():
    with pytest.raises(NotFittedError):
        D2Pruner().get_support()
    with pytest.raises(ArgumentError, match="fraction"):
        D2Pruner(fraction=2).fit(np.eye(3), [1, 2, 3])
