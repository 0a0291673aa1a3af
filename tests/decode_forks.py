"""Decode processes as forks of one that has imported what they need.

A run of a few samples would otherwise spend half of its CPU time, 0.3 s a process, on their imports. The
forks run `d2prune.embed.decode.process` from its first line; only the start of the program differs. Tests of
that start use the fixture `decode_program`.
"""

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path

from d2prune.embed.decode import machine_code, process

_ROOT = Path(__file__).resolve().parents[1]
_lock = threading.Lock()
_server: socket.socket | None = None


class ForkedProcess:
    """What `DecodePool` uses of a `subprocess.Popen`, and its arguments."""

    def __init__(self, command, *, pass_fds, env, **_):
        ours, theirs = socket.socketpair()
        message = json.dumps({"arguments": command[3:], "env": dict(env), "folder": os.getcwd()})
        with theirs:
            socket.send_fds(_connect(), [message.encode()], [theirs.fileno(), 1, 2, *pass_fds])
        self._status = ours.makefile("r")
        ours.close()
        self.pid = int(self._status.readline())
        self.returncode = None

    def kill(self):
        """Kill the process; no error if it has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wait(self):
        """Wait for the end of the process; returns its exit code, or the negative number of a signal."""
        if self.returncode is None:
            self.returncode = int(self._status.readline())
            self._status.close()
        return self.returncode


def _connect():
    """Start the process to fork, with the first use; it ends with this one."""
    global _server
    with _lock:
        if _server is None:
            _server, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                subprocess.Popen(
                    [sys.executable, "-m", "tests.decode_forks", str(theirs.fileno())],
                    cwd=_ROOT,
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env=os.environ
                    | {"PYTHONPATH": f"{_ROOT / 'pipeline'}{os.pathsep}{_ROOT}", "OMP_NUM_THREADS": "1"},
                )
        return _server


def _serve(connection):
    # What a decode process receives first is a `Decoder`.
    importlib.import_module("d2prune.embed.decode.decoder")
    machine_code.compile_code()
    # Nobody waits here for the forks between, and the end of this process is that of the tests.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    while True:
        message, handles, _, _ = socket.recv_fds(connection, 1 << 20, 16)
        if not message:
            return
        if os.fork() == 0:
            connection.close()
            _fork(json.loads(message), *handles)
        for handle in handles:
            os.close(handle)


def _fork(message, status, out, errors, *handles):
    """Run the program in a fork, and report its number and its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        os.close(status)
        os.dup2(out, 1)
        os.dup2(errors, 2)
        _run(message, handles)
    for handle in (out, errors, *handles):
        os.close(handle)
    with os.fdopen(status, "w") as report:
        print(child, file=report, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=report)
    os._exit(0)


def _run(message, handles):
    try:
        os.chdir(message["folder"])
        os.environ.clear()
        os.environ.update(message["env"])
        sys.path[:] = message["env"]["PYTHONPATH"].split(os.pathsep)
        process.main([*map(str, handles), *message["arguments"][len(handles) :]])
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
