"""The command line in a separate process, to kill.

It is a fork of a process that has imported everything: a start of Python would spend 4 s of CPU on that.
"""

import multiprocessing
import os
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.preloaded"])


def start(arguments: list[str], errors: Path) -> ForkServerProcess:
    """Start `d2prune` with these arguments; its standard error goes to a file."""
    process = _CONTEXT.Process(target=_run, args=(arguments, str(errors)))
    process.start()
    return process


def _run(arguments: list[str], errors: str) -> None:
    from d2prune.cli.main import main

    os.setsid()
    for descriptor, path in ((1, os.devnull), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.exit(main(arguments))
