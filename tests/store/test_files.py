"""Reads, writes and listings, local and in memory."""

import contextlib
import os

import pytest

from d2prune import store
from d2prune.demo import s3_server
from d2prune.errors import InfrastructureError, UserError
from tests.s3 import moto_server


def test_a_failed_write_leaves_nothing(tmp_path):
    target = str(tmp_path / "folder" / "object")
    with pytest.raises(RuntimeError), store.writer(target) as stream:
        stream.write(b"half")
        raise RuntimeError("killed")
    assert os.listdir(tmp_path / "folder") == []


def test_a_failed_write_keeps_the_old_object(tmp_path):
    target = str(tmp_path / "object")
    store.write_bytes(target, b"old")
    with pytest.raises(RuntimeError), store.writer(target) as stream:
        stream.write(b"new")
        raise RuntimeError("killed")
    assert store.read_bytes(target) == b"old"


@pytest.mark.parametrize("root", ["local", "memory://bucket"])
def test_reads_back_what_was_written(tmp_path, root):
    root = str(tmp_path) if root == "local" else root
    url = store.join(root, "a", "b.bin")
    data = bytes(range(256)) * 100
    store.write_bytes(url, data)
    with store.writer(store.join(root, "a", "c.bin")) as stream:
        stream.write(data)
    assert store.read_bytes(url) == data
    assert store.read_range(url, 300, 77) == data[300:377]
    with store.open_read(url) as stream:
        assert stream.read() == data
    with store.local_copy(url) as path, open(path, "rb") as file:
        assert file.read() == data
    files = store.list_files(store.join(root, "a"))
    assert [(file.url.rsplit("/", 1)[1], file.size) for file in files] == [("b.bin", 25600), ("c.bin", 25600)]
    assert store.exists(url) and not store.exists(store.join(root, "a"))
    store.delete([url, url])
    assert not store.exists(url)


def test_a_changed_file_has_another_version(tmp_path):
    url = str(tmp_path / "x")
    store.write_bytes(url, b"one")
    before = store.info(url).version
    store.write_bytes(url, b"two")
    os.utime(url, ns=(1, 1))
    assert store.info(url).version != before


def test_a_range_beyond_the_end_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(store.read_range.retry, "stop", lambda state: True)
    url = str(tmp_path / "x")
    store.write_bytes(url, b"0123456789")
    with pytest.raises(InfrastructureError, match="found 2 bytes at 8; expected 4"):
        store.read_range(url, 8, 4)


def test_missing_objects_and_unknown_schemes_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing-here: not found"):
        store.read_bytes(str(tmp_path / "nothing-here"))
    with pytest.raises(UserError, match="carrier-pigeon"):
        store.read_bytes("carrier-pigeon://x")
    assert store.list_files(str(tmp_path / "no-folder")) == []


def test_redact_hides_credentials():
    assert store.redact("s3://key:secret@bucket/x?token=1") == "s3://bucket/x"
    assert store.redact("/plain/path") == "/plain/path"


AWKWARD = ("a?b", "a*b", "a[b]c", "a**", "[!x]", "plain")


@pytest.fixture(params=["local", "moto", "rclone"])
def root(request, tmp_path):
    """URL of an empty folder, local or on an S3 server."""
    if request.param == "local":
        yield str(tmp_path / "root")
        return
    servers = {"moto": moto_server, "rclone": lambda: s3_server.serve(tmp_path)}
    with servers[request.param]() as server, s3_server.environment(server):
        server.make_bucket("bucket")
        yield "s3://bucket/root"


def test_names_of_folders_are_literal(root):
    for name in (*AWKWARD, "axb", "aab", "abc"):
        for file in ("x.json", "y.txt", "deep/x.json"):
            store.write_bytes(f"{root}/{name}/{file}", b"1")
    for name in AWKWARD:
        folder = f"{root}/{name}"
        assert [file.url for file in store.list_files(folder)] == [
            f"{folder}/{file}" for file in ("deep/x.json", "x.json", "y.txt")
        ]
        assert [file.url for file in store.list_files(folder, "*.json")] == [f"{folder}/x.json"]
        assert [file.url for file in store.list_files(folder, "*/x.json")] == [f"{folder}/deep/x.json"]
        assert store.list_entries(folder) == ["deep/x.json", "x.json", "y.txt"]
        assert [file.url for file in store.find_files(f"{root}/*/y.txt", ())][:1] == [f"{root}/[!x]/y.txt"]


def test_entries_include_links_special_and_temporary_files(tmp_path):
    (tmp_path / "other").mkdir()
    folder = tmp_path / "folder"
    (folder / "empty").mkdir(parents=True)
    assert store.list_entries(str(folder)) == [] == store.list_entries(str(tmp_path / "none"))
    (folder / "dangling").symlink_to("nowhere")
    (folder / "folder-link").symlink_to(tmp_path / "other")
    os.mkfifo(folder / "fifo")
    (folder / ".tmp-d2prune-x").touch()
    assert store.list_entries(str(folder)) == [".tmp-d2prune-x", "dangling", "fifo", "folder-link"]
    assert store.list_files(str(folder)) == []


def test_a_file_that_vanishes_during_a_listing_leaves_the_others(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).touch()
    scan = os.scandir

    def scan_and_delete(path):
        entries = list(scan(path))
        (tmp_path / "a").unlink(missing_ok=True)
        return contextlib.nullcontext(entries)

    monkeypatch.setattr(os, "scandir", scan_and_delete)
    assert [file.url for file in store.list_files(str(tmp_path))] == [str(tmp_path / "b")]


def test_only_urls_have_a_query_string():
    assert store.redact("/data/what?/run") == "/data/what?/run"
