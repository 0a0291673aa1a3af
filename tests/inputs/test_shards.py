"""The tars that an input names: which, in what order, and under which names."""

import pytest

from d2prune.errors import UserError
from d2prune.inputs.shards import expand_input


@pytest.fixture
def pool(tmp_path):
    for name in ["2.tar", "10.tar", "1.tar", "sub/3.tar", "notes.txt"]:
        path = tmp_path / "pool" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))
    return str(tmp_path / "pool")


def names(given):
    return [shard.name for shard in expand_input(given)]


def test_folder_is_in_natural_order(pool):
    shards = expand_input(pool)
    assert [s.name for s in shards] == ["1", "2", "10", "3"]
    assert shards[0].size == 5 and shards[0].url.endswith("/1.tar") and shards[0].version


def test_globs_are_in_natural_order_and_lists_in_given_order(pool):
    assert names(f"{pool}/*.tar") == ["1", "2", "10"]
    assert names([f"{pool}/sub", f"{pool}/2.tar", f"{pool}/1.tar"]) == ["3", "2", "1"]


def test_braces_keep_their_order(pool):
    assert names(f"{pool}/{{10,1,2}}.tar") == ["10", "1", "2"]
    assert names(f"{pool}/{{10,sub/3,1}}.tar") == ["10", "3", "1"]


def test_many_named_files_are_found_by_listing(tmp_path):
    for i in range(20):
        (tmp_path / f"{i:03d}.tar").write_bytes(b"")
    assert names(f"{tmp_path}/{{019..000}}.tar") == [f"{i:03d}" for i in reversed(range(20))]
    with pytest.raises(
        UserError, match=r"020\.tar, .*021\.tar, .*022\.tar and 1 more: does not exist \(of 24 named"
    ):
        expand_input(f"{tmp_path}/{{000..023}}.tar")


def test_names_are_unique(tmp_path):
    for name in ["a/0.tar", "b/0.tar", "b/1.tar"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert names(str(tmp_path)) == ["a/0", "b/0", "b/1"]
    (tmp_path / "b" / "1.TAR").write_bytes(b"")
    assert names(str(tmp_path)) == ["a/0.tar", "b/0.tar", "b/1.TAR", "b/1.tar"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{pool}/9.tar", "9.tar: does not exist$"),
        ("{pool}/nowhere", "nowhere: does not exist"),
        ("{pool}/*.zip", "no tar matches"),
        ("{pool}/*.txt", "no tar matches"),
        ("{pool}/notes.txt", "expected a .tar file"),
        ("{pool}/empty", "no .tar in this folder"),
        (["{pool}", "{pool}/1.tar"], "would be read twice"),
        ([], "got nothing"),
        ("", "got nothing"),
        ("s9://x/y.tar", "s9"),
    ],
)
def test_usage_errors_name_the_input(pool, tmp_path, given, message):
    (tmp_path / "pool" / "empty").mkdir()
    fill = (
        [g.replace("{pool}", pool) for g in given]
        if isinstance(given, list)
        else given.replace("{pool}", pool)
    )
    with pytest.raises(UserError, match=message):
        expand_input(fill)
