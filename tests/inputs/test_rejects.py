"""The vocabulary of reasons is complete: every reason has a meaning."""

import pytest

from d2prune.inputs import rejects
from d2prune.inputs.rejects import SampleRejected

REASONS = {
    name: value
    for name, value in vars(rejects).items()
    if name.isupper() and isinstance(value, str) and not name.startswith("_")
}


def test_every_reason_has_a_meaning():
    assert len(REASONS) >= 20
    assert set(REASONS.values()) == rejects.MEANINGS.keys()
    assert all(name.lower().replace("_", "-") == value for name, value in REASONS.items())


@pytest.mark.parametrize("reason", sorted(rejects.MEANINGS))
def test_meaning_is_one_line(reason):
    assert rejects.MEANINGS[reason].strip() and "\n" not in rejects.MEANINGS[reason]


def test_filter_reasons_are_those_named_filtered():
    assert rejects.FILTER_REASONS == {reason for reason in rejects.MEANINGS if reason.startswith("filtered-")}


def test_the_exception_becomes_the_reject_of_its_sample():
    error = SampleRejected(rejects.CAPTION_EMPTY, "0 bytes")
    assert error.reject("k") == rejects.Reject("k", "caption-empty", "0 bytes")
