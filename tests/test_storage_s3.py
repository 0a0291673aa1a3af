"""The store across a real S3 protocol: a server that goes away, moves, and refuses keys."""

import time

import pytest

from pipeline import storage
from pipeline.demo import s3_server
from pipeline.errors import InfrastructureError, UserError


def test_a_process_may_turn_to_another_server(tmp_path):
    for name in ("one", "two"):
        with s3_server.serve(tmp_path / name) as server, s3_server.environment(server):
            server.make_bucket("bucket")
            storage.write_bytes("s3://bucket/who", name.encode())
            assert storage.read_bytes("s3://bucket/who") == name.encode()


def test_a_wrong_key_is_the_users_and_is_not_tried_again(tmp_path, monkeypatch):
    with s3_server.serve(tmp_path) as server, s3_server.environment(server):
        server.make_bucket("bucket")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        start = time.monotonic()
        with pytest.raises(UserError, match="s3://bucket/x"):
            storage.write_bytes("s3://bucket/x", b"data")
        assert time.monotonic() - start < 5


def test_a_server_that_is_away_is_infrastructure(tmp_path, monkeypatch):
    with s3_server.serve(tmp_path) as server, s3_server.environment(server):
        server.make_bucket("bucket")
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(InfrastructureError, match="s3://bucket/x"):
            storage.read_bytes("s3://bucket/x")


def test_a_missing_bucket_is_not_found(tmp_path):
    with s3_server.serve(tmp_path) as server, s3_server.environment(server):
        with pytest.raises(FileNotFoundError, match="s3://none/x"):
            storage.read_bytes("s3://none/x")
        with pytest.raises(UserError, match="s3://none/x: cannot be written, its bucket does not exist"):
            storage.write_bytes("s3://none/x", b"data")
        with pytest.raises(UserError, match="its bucket does not exist"), storage.writer("s3://none/y") as stream:
            stream.write(b"data")
