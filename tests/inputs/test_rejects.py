"""Every reason has a meaning, and reports show it."""

import pytest

from d2prune.inputs import rejects
from d2prune.inputs.rejects import SampleRejected
from d2prune.report import formatting

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
def test_meanings_are_one_line_and_reports_show_them(reason):
    assert rejects.MEANINGS[reason].strip() and "\n" not in rejects.MEANINGS[reason]
    assert formatting.MEANINGS[reason] == rejects.MEANINGS[reason]


def test_filter_reasons_are_those_named_filtered():
    assert rejects.FILTER_REASONS == {reason for reason in rejects.MEANINGS if reason.startswith("filtered-")}


def test_the_exception_becomes_the_reject_of_its_sample():
    error = SampleRejected(rejects.CAPTION_EMPTY, "0 bytes")
    assert error.reject("k") == rejects.Reject("k", "caption-empty", "0 bytes")
