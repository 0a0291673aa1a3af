"""Claiming an output folder."""

import pytest

from d2prune.errors import UserError
from d2prune.output import claim
from tests.output.pools import tree


def test_an_empty_folder_is_claimed_and_the_own_claim_is_found(tmp_path):
    out = str(tmp_path / "out")
    claim.claim(out, "a" * 32)
    (tmp_path / "out" / "00000000.tar").write_bytes(b"x")
    claim.claim(out, "a" * 32)


@pytest.mark.parametrize("names", [["00000000.tar"], [".d2prune-run.json"], ["a", "b"]])
def test_a_foreign_folder_is_refused_and_left_unchanged(tmp_path, names):
    for name in names:
        (tmp_path / name).write_bytes(b"{}")
    before = tree(tmp_path)
    with pytest.raises(UserError) as caught:
        claim.claim(str(tmp_path), "a" * 32)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
    assert tree(tmp_path) == before


def test_the_folder_of_another_run_is_refused_and_left_unchanged(tmp_path):
    claim.claim(str(tmp_path), "a" * 32)
    before = tree(tmp_path)
    with pytest.raises(UserError, match="another run's data"):
        claim.claim(str(tmp_path), "b" * 32)
    assert tree(tmp_path) == before
