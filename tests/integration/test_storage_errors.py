"""Storage errors: one line, exit code 2, and never a credential."""

import contextlib
import errno
import functools
import http.server
import logging
import os
import re
import resource
import threading
from pathlib import Path

import pytest
import s3fs

from d2prune import store
from d2prune.cli.main import main
from d2prune.demo import s3_server
from d2prune.errors import UserError
from d2prune.output import subset
from d2prune.store import faults
from tests.fault_proxy import FaultProxy
from tests.output.pools import plain_pool, put_pool

SECRET = "topSecret0123456789abcdef"


@pytest.fixture
def given(tmp_path):
    """Arguments of a reshard of two tars with all their samples, without the output."""
    made = plain_pool(2, 8)
    put_pool(tmp_path / "pool", made)
    uids = subset.encode([sample.uid for shard in made for sample in shard])
    (tmp_path / "subset.npy").write_bytes(subset.to_bytes(uids))
    return [
        "reshard",
        "--input",
        str(tmp_path / "pool"),
        "--subset",
        str(tmp_path / "subset.npy"),
        "--output",
    ]


@pytest.fixture
def error_line(capsys):
    """Runs the command and returns its one-line error. No output may contain the secret."""

    def call(arguments, code=2):
        assert main(arguments) == code
        printed = capsys.readouterr()
        assert SECRET not in printed.out + printed.err
        lines = [line for line in printed.err.splitlines() if line.startswith("d2prune: ")]
        assert len(lines) == 1 and "Traceback" not in printed.err
        return lines[0]

    return call


@pytest.fixture
def served(tmp_path):
    with s3_server.serve(tmp_path / "s3", secret_key=SECRET) as server, s3_server.environment(server):
        server.make_bucket("bucket")
        yield server
    s3fs.S3FileSystem.clear_instance_cache()


def objects(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_wrong_secret(given, error_line, served, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET[::-1])
    line = error_line([*given, "s3://bucket/out"])
    assert line.startswith("d2prune: s3://bucket/out/") and SECRET[::-1] not in line
    assert objects(served.folder) == []


def test_no_key(given, error_line, served, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    assert "redentials" in error_line([*given, "s3://bucket/out"])


def test_missing_bucket(given, error_line, served):
    assert "s3://no-such-bucket/out" in error_line([*given, "s3://no-such-bucket/out"])
    missing = [
        argument.replace(str(served.folder.parent / "pool"), "s3://no-such-bucket/pool") for argument in given
    ]
    assert "s3://no-such-bucket/pool: does not exist" in error_line([*missing, "s3://bucket/out"])


def test_read_only_bucket(given, error_line, served, monkeypatch):
    with FaultProxy(served.endpoint, every=1, kinds=("403",), only=("PUT", "POST")) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        line = error_line([*given, "s3://bucket/out"])
        assert re.fullmatch(
            r"d2prune: s3://bucket/out/\.lease/probe-[\w.-]+: Access Denied; the store refuses access with "
            "these credentials: check their permissions for this address",
            line,
        )
        assert proxy.spoiled["403"] == 1


def test_impossible_output_folder(given, error_line, tmp_path):
    (tmp_path / "file").write_bytes(b"in the way")
    assert f"{tmp_path}/file/" in error_line([*given, str(tmp_path / "file" / "out")])
    assert "/proc/no-such-place" in error_line([*given, "/proc/no-such-place"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(given, error_line, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    assert f"{tmp_path}/closed/out/" in error_line([*given, str(tmp_path / "closed" / "out")])


def test_disk_full(given, error_line, tmp_path):
    """A limit on file sizes stands in for a full disk: the kernel refuses the same write."""
    # Compiles the kernels: their cache files must not run into the limit.
    assert main([*given, str(tmp_path / "first")]) == 0
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        line = error_line([*given, str(tmp_path / "out")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "00000000.tar: cannot be written: the file exceeds the size limit" in line
    assert [path.name for path in objects(tmp_path / "out")] == [".d2prune-run.json"]
    assert main([*given, str(tmp_path / "out")]) == 0


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the filesystem is read-only"),
    ],
)
def test_disk_errors_are_named(number, words):
    with pytest.raises(UserError, match=f"^/x: cannot be written: {words}$"), faults.translated("/x"):
        raise OSError(number, os.strerror(number), "/x/.tmp")


def test_output_of_another_run(given, error_line, tmp_path):
    assert main([*given, str(tmp_path / "out")]) == 0
    line = error_line([*given, str(tmp_path / "out"), "--samples-per-shard", "5"])
    assert line.startswith(f"d2prune: output {tmp_path}/out holds another run's data")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_bytes(b"x")
    assert "found thesis.txt" in error_line([*given, str(tmp_path / "mine")])


@pytest.mark.parametrize("scheme", ["s3", "s3a", "gs"])
def test_credentials_in_an_s3_url_are_refused_and_not_shown(given, error_line, scheme):
    line = error_line([*given, f"{scheme}://AKIA:{SECRET}@bucket/out"])
    assert (
        line.startswith(f"d2prune: output {scheme}://bucket/out") and "found credentials in the URL" in line
    )


def test_credentials_in_an_http_url_are_used_and_never_stored(given, tmp_path, capsys, caplog):
    """Basic authentication over HTTP opens the pool; nothing written or printed contains it."""
    seen = set()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_HEAD(self):
            seen.add(self.headers.get("Authorization"))
            super().do_HEAD()

        def do_GET(self):
            data = Path(self.translate_path(self.path)).read_bytes()
            first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            self.send_response(206)
            self.send_header("Content-Length", str(len(data[first : last + 1])))
            self.end_headers()
            self.wfile.write(data[first : last + 1])

        def log_message(self, *_):
            pass

    serving = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path / "pool"))
    )
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    try:
        url = f"http://someone:{SECRET}@127.0.0.1:{serving.server_port}/{{00000000..00000001}}.tar"
        arguments = [url if value == str(tmp_path / "pool") else value for value in given]
        with caplog.at_level(logging.DEBUG, logger="d2prune"), contextlib.suppress(SystemExit):
            code = main([*arguments, str(tmp_path / "out"), "--work-dir", str(tmp_path / "work")])
            main([*arguments, str(tmp_path / "out2"), "--samples-per-shard", "0"])
    finally:
        serving.shutdown()
        serving.server_close()
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert SECRET not in printed.out + printed.err + caplog.text
    assert any(seen), "no request carried the password"
    for path in [*objects(tmp_path / "out"), *objects(tmp_path / "work")]:
        assert SECRET.encode() not in path.read_bytes(), path


def test_messages_of_other_libraries_are_redacted(monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", SECRET)
    shown = faults.one_line(OSError(f"GET https://me:pw@host/x?X-Amz-Signature=abc failed\nwith {SECRET}"))
    assert shown == "GET https://host/x failed with (AWS_SESSION_TOKEN)"
    assert store.redact("s3://key:secret@bucket/x?token=1") == "s3://bucket/x"
