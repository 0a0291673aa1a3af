"""A real S3 server that goes away, moves, refuses keys, and holds unfinished uploads."""

import os
import signal
import subprocess
import sys
import time

import pytest
from botocore.session import get_session

from d2prune import store
from d2prune.demo import s3_server
from d2prune.errors import InfrastructureError, UserError
from d2prune.output import claim
from tests.s3 import moto_server


def test_a_process_may_change_its_endpoint(tmp_path):
    for name in ("one", "two"):
        with s3_server.serve(tmp_path / name) as server, s3_server.environment(server):
            server.make_bucket("bucket")
            store.write_bytes("s3://bucket/who", name.encode())
            assert store.read_bytes("s3://bucket/who") == name.encode()


def test_a_wrong_key_is_a_user_error_and_is_not_retried(tmp_path, monkeypatch):
    with s3_server.serve(tmp_path) as server, s3_server.environment(server):
        server.make_bucket("bucket")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        start = time.monotonic()
        with pytest.raises(UserError, match="s3://bucket/x"):
            store.write_bytes("s3://bucket/x", b"data")
        # All attempts would take at least 21 s.
        assert time.monotonic() - start < 20


def test_a_server_that_is_away_is_an_infrastructure_error(tmp_path, monkeypatch):
    monkeypatch.setenv("D2PRUNE_STORAGE_ATTEMPTS", "2")
    with s3_server.serve(tmp_path) as server, s3_server.environment(server):
        server.make_bucket("bucket")
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(InfrastructureError, match="s3://bucket/x"):
            store.read_bytes("s3://bucket/x")


def test_a_missing_bucket_is_not_found_by_reads_and_a_user_error_of_writes(tmp_path):
    with s3_server.serve(tmp_path) as server, s3_server.environment(server):
        assert store.list_files("s3://none/x") == store.find_files("s3://none/x*", ()) == []
        assert store.list_entries("s3://none/x") == []
        with pytest.raises(FileNotFoundError, match="s3://none/x"):
            store.read_bytes("s3://none/x")
        with pytest.raises(UserError, match="s3://none/x: cannot be written, its bucket does not exist"):
            store.write_bytes("s3://none/x", b"data")
        with (
            pytest.raises(UserError, match="its bucket does not exist"),
            store.writer("s3://none/y") as stream,
        ):
            stream.write(b"data")


KILLED = """
import sys, time
from d2prune import store
with store.writer(sys.argv[1]) as stream:
    stream.write(bytes(40 * 2**20))
    stream.flush()
    print("begun", flush=True)
    time.sleep(60)
"""


def kill_an_upload(url):
    process = subprocess.Popen([sys.executable, "-c", KILLED, url], stdout=subprocess.PIPE, env=os.environ)
    assert process.stdout is not None and process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("kind", ["moto", "rclone"])
def test_only_unfinished_uploads_of_the_folder_are_swept(tmp_path, kind):
    servers = {"moto": moto_server, "rclone": lambda: s3_server.serve(tmp_path)}
    with servers[kind]() as server, s3_server.environment(server):
        server.make_bucket("bucket")
        client = get_session().create_client("s3")

        def unfinished():
            return sorted(
                upload["Key"] for upload in client.list_multipart_uploads(Bucket="bucket").get("Uploads", [])
            )

        store.write_bytes("s3://bucket/out/whole", b"x")
        for name in ("out/00000000.tar", "out-of-another/00000000.tar"):
            kill_an_upload(f"s3://bucket/{name}")
        assert unfinished() == ["out-of-another/00000000.tar", "out/00000000.tar"]
        claim.remove_temporaries("s3://bucket/out")
        assert unfinished() == ["out-of-another/00000000.tar"]
        assert [file.url for file in store.list_files("s3://bucket/")] == ["s3://bucket/out/whole"]
        assert store.sweep_uploads("s3://bucket") == 1
        assert store.sweep_uploads("s3://bucket/") == 0
        assert store.sweep_uploads("s3://none/x") == 0
