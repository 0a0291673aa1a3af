"""The program of one decode process: samples come in through a socket, pixels go out through shared memory.

`pool.py` starts it as `python -m d2prune.embed.decode.process SOCKET ARENA MARK TIMEOUT`; it is not
meant to be run by hand. It is a separate program because forking a process that runs torch, CUDA and
threads is unsafe, and multiprocessing's spawn would import the user's main script again.

Before each sample, the process writes the task number and the sample's index to shared memory, so
that the parent knows which sample ended the process. The time limit is enforced by the kernel: a
timer whose signal ends the process, whatever a C decoder is doing at that moment. It counts the
processor time of this process, so that no image is rejected because the machine is busy. A second
limit, ten times as long in wall-clock time, ends a decoder that waits forever.
"""

import mmap
import os
import queue
import signal
import struct
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from typing import Any

from d2prune import console

MARK = struct.Struct("<qq")
"""Task number and index of the sample that a process works on; index -1: none."""

WALL_FACTOR = 10
"""Limit of wall-clock time, as a multiple of the limit of processor time."""

TIMEOUT_SIGNALS = frozenset({signal.SIGPROF, signal.SIGALRM})
"""Signals that end a process that exceeds a limit."""


def main(arguments: list[str]) -> None:
    """Serve tasks until the parent closes the socket or dies."""
    handle, arena_handle, mark_offset = (int(argument) for argument in arguments[:3])
    timeout_s = float(arguments[3])
    console.install()
    # The terminal sends Ctrl-C to every process of the group; the parent decides how to react.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in TIMEOUT_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    connection = Connection(handle)
    arena = memoryview(mmap.mmap(arena_handle, 0))
    try:
        decoder = connection.recv()
        decoder.setup()
        tasks: queue.Queue[Any] = queue.Queue()
        # A separate thread reads, since otherwise the parent's next send could wait for this process
        # while this process's reply waits for the parent.
        threading.Thread(target=_receive_tasks, args=(connection, tasks), daemon=True).start()
        while True:
            connection.send(_run_task(decoder, tasks.get(), arena, mark_offset, timeout_s))
    except (EOFError, ConnectionError):
        pass
    os._exit(0)


def _receive_tasks(connection: "Connection[Any, Any]", tasks: "queue.Queue[Any]") -> None:
    try:
        while True:
            tasks.put(connection.recv())
    except (EOFError, ConnectionError):
        # The parent died or closed the socket.
        os._exit(0)


def _run_task(decoder: Any, task: Any, arena: memoryview, mark_offset: int, timeout_s: float) -> Any:
    """Decode a task; return (outcomes, ""), or (None, traceback) if the decoder has a defect."""
    number, samples = task
    outcomes: list[Any] = []
    try:
        for index, (offset, size, sample) in enumerate(samples):
            MARK.pack_into(arena, mark_offset, number, index)
            signal.setitimer(signal.ITIMER_PROF, timeout_s)
            signal.setitimer(signal.ITIMER_REAL, WALL_FACTOR * timeout_s)
            outcomes.append(decoder(sample, arena[offset : offset + size]))
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
    except MemoryError:
        # The memory that this image needed may stay unavailable in this process, so end it.
        traceback.print_exc()
        os._exit(1)
    except Exception:
        return None, traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        MARK.pack_into(arena, mark_offset, number, -1)
    return outcomes, ""


if __name__ == "__main__":
    main(sys.argv[1:])
