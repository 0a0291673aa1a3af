"""Claiming an output folder."""

import os

import pytest

from d2prune import store
from d2prune.demo import s3_server
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


@pytest.mark.parametrize("name", ["out", "out?", "out*", "[out]", "o[a-z]t", "{out}"])
@pytest.mark.parametrize("kind", ["file", "subfolder", "dangling link", "link to a folder", "fifo"])
def test_a_folder_with_anything_in_it_is_refused_whatever_its_name(tmp_path, name, kind):
    folder = tmp_path / name
    folder.mkdir()
    if kind == "file":
        (folder / "mine").write_bytes(b"x")
    elif kind == "subfolder":
        (folder / "sub").mkdir()
        (folder / "sub" / "mine").write_bytes(b"x")
    elif kind == "fifo":
        os.mkfifo(folder / "mine")
    else:
        (folder / "mine").symlink_to("nowhere" if kind == "dangling link" else tmp_path)
    with pytest.raises(UserError, match="is not empty and has no claim"):
        claim.claim(str(folder), "a" * 32)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("name", ["out?", "out*", "[out]"])
def test_an_s3_folder_with_glob_characters_is_listed_by_its_name(server, name):
    server.make_bucket("claims")
    with s3_server.environment(server):
        folder = f"s3://claims/{name}"
        claim.claim(folder, "a" * 32)
        store.delete([f"{folder}/.d2prune-run.json"])
        store.write_bytes(f"{folder}/mine", b"x")
        with pytest.raises(UserError, match="is not empty and has no claim"):
            claim.claim(folder, "a" * 32)


def test_a_folder_that_cannot_be_read_does_not_count_as_empty(tmp_path, monkeypatch):
    (tmp_path / "mine").write_bytes(b"x")

    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="Permission denied"):
        claim.check(str(tmp_path), "a" * 32)
