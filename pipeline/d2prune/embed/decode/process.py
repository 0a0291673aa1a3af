"""The program of one decode process: samples come in through a socket, pixels go out through shared memory.

Started by `decode_pool` as `python -m d2prune.embed.decode.process SOCKET ARENA MARK TIMEOUT`,
never by hand. A program of its own and no fork: a fork of a process that runs torch, CUDA and
threads is unsafe, and multiprocessing's spawn would import the user's main script again.

Before a sample is looked at, its task's number and its place in the task are written to shared
memory, so that the parent knows whose fault it is if this process does not survive it. The time
limit is the kernel's: a timer whose signal ends the process, whatever a decoder in C is doing at
that moment. It counts the processor time of this process, so that a busy machine rejects no
picture; ten times as long on the clock ends what waits forever.
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

MARK = struct.Struct("<qq")
"""Number of the task and index of the sample that a process is at; index -1: none."""

WALL_FACTOR = 10
"""How many times the limit of processor time a sample may take on the clock."""

TIMEOUT_SIGNALS = frozenset({signal.SIGPROF, signal.SIGALRM})
"""What ends a process that takes too long."""


def main(arguments: list[str]) -> None:
    """Serves tasks until the parent closes the socket (or dies)."""
    handle, arena_handle, mark_offset, timeout_s = (
        int(arguments[0]),
        int(arguments[1]),
        int(arguments[2]),
        arguments[3],
    )
    # The terminal sends Ctrl-C to every process of the group; the parent decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in TIMEOUT_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    connection = Connection(handle)
    arena = memoryview(mmap.mmap(arena_handle, 0))
    try:
        work = connection.recv()
        work.setup()
        tasks: queue.Queue[Any] = queue.Queue()
        # Reading on its own thread keeps the parent's next send from waiting for this process,
        # whose reply may in turn wait for the parent.
        threading.Thread(target=_receive, args=(connection, tasks), daemon=True).start()
        while (task := tasks.get()) is not None:
            connection.send(_outcomes(work, task, arena, mark_offset, float(timeout_s)))
    except (EOFError, ConnectionError):
        pass
    os._exit(0)


def _receive(connection: "Connection[Any, Any]", tasks: "queue.Queue[Any]") -> None:
    try:
        while True:
            tasks.put(connection.recv())
    except (EOFError, ConnectionError):
        # The parent is gone, or does not want this process any more.
        os._exit(0)


def _outcomes(work: Any, task: Any, arena: memoryview, mark_offset: int, timeout_s: float) -> Any:
    number, samples = task
    outcomes: list[Any] = []
    try:
        for index, (offset, size, sample) in enumerate(samples):
            MARK.pack_into(arena, mark_offset, number, index)
            signal.setitimer(signal.ITIMER_PROF, timeout_s)
            signal.setitimer(signal.ITIMER_REAL, WALL_FACTOR * timeout_s)
            outcomes.append(work(sample, arena[offset : offset + size]))
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
    except MemoryError:
        # Memory that one picture could not get may be gone for good in this process.
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
