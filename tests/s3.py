"""An S3 server that supports conditional puts, unlike rclone: moto, in a process of its own."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from d2prune.demo.s3_server import S3Server

SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
server.stop()
"""


@contextlib.contextmanager
def moto_server() -> Iterator[S3Server]:
    """A fresh server on loopback. It ends with its standard input, even if the test is killed."""
    command = [sys.executable, "-c", SERVER]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield S3Server(f"http://127.0.0.1:{port}", "any", "any", Path(), process.pid)
    finally:
        process.kill()
        process.communicate()
