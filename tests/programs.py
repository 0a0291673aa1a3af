"""The command line, or other code, in a separate process, to kill or to interrupt.

It is a fork of a process that has imported everything: a start of Python would spend 1 to 4 s of CPU on that.
"""

import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from socket import AF_UNIX, socket

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.preloaded"])


def serve_forks() -> None:
    """Let this process, as it is now, be what this one and its forks fork; for `tests.side_by_side`.

    Otherwise each process of the tests would start a server with the first use, and import for it.
    """
    server = forkserver._forkserver  # type: ignore[attr-defined]
    if server._forkserver_pid is not None or "open_clip" not in sys.modules:
        # Its import would cost each fork more than one server.
        return
    resource_tracker.ensure_running()
    address = connection.arbitrary_address("AF_UNIX")  # type: ignore[attr-defined]
    alive, ours = os.pipe()
    with socket(AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        if os.fork() == 0:
            os.close(ours)
            try:
                forkserver.main(listener.detach(), alive, preload=[])
            finally:
                os._exit(0)
    os.close(alive)
    server._forkserver_address, server._forkserver_alive_fd = address, ours
    # It would wait for a child of the process that calls it.
    server.ensure_running = lambda: None


def start(arguments: list[str], errors: Path) -> ForkServerProcess:
    """Start `d2prune` with these arguments; its standard error goes to a file."""
    process = CONTEXT.Process(target=_run, args=(arguments, str(errors), dict(os.environ)))
    process.start()
    return process


def _run(arguments: list[str], errors: str, environment: dict[str, str]) -> None:
    from d2prune.cli.main import main

    _replace_environment(environment)
    os.setsid()
    for descriptor, path in ((1, os.devnull), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.exit(main(arguments))


def _replace_environment(environment: dict[str, str]) -> None:
    """Of the process that was forked, by that of the test."""
    os.environ.clear()
    os.environ.update(environment)


class Code:
    """Python code in a process of its own, with what a `subprocess.Popen` has for text in three pipes."""

    def __init__(self, code: str, arguments: Sequence[str]) -> None:
        pipes = [CONTEXT.Pipe(duplex=False) for _ in range(3)]
        (theirs_in, ours_in), (ours_out, theirs_out), (ours_err, theirs_err) = pipes
        theirs = (theirs_in, theirs_out, theirs_err)
        self._process = CONTEXT.Process(
            target=_run_code, args=(code, list(arguments), dict(os.environ), *theirs)
        )
        self._process.start()
        for end in theirs:
            end.close()
        self.stdin, self.stdout, self.stderr = (
            os.fdopen(os.dup(end.fileno()), mode)
            for end, mode in ((ours_in, "w"), (ours_out, "r"), (ours_err, "r"))
        )
        for end in (ours_in, ours_out, ours_err):
            end.close()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def communicate(self, text: str = "", timeout: float | None = None) -> tuple[str, str]:
        """Send a text, wait for the end, and return what was printed: less than a pipe holds."""
        self.stdin.write(text)
        self.stdin.close()
        self._process.join(timeout)
        assert self._process.exitcode is not None, "it did not end"
        return self.stdout.read(), self.stderr.read()


def _run_code(
    code: str, arguments: list[str], environment: dict[str, str], *pipes: connection.Connection
) -> None:
    _replace_environment(environment)
    for descriptor, pipe in enumerate(pipes):
        os.dup2(pipe.fileno(), descriptor)
        pipe.close()
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.FileIO(n, "w", closefd=False), write_through=True) for n in (1, 2)
    )
    # A shell without job control starts background jobs with SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})
