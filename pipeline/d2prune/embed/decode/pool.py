"""Long-lived decode processes that write pixels into shared memory; no picture can stop whoever uses them.

A task is a few samples with a slot of the arena each; its future gives a `Prepared` or `Rejected`
for each, in order. One thread per process keeps two tasks with it, so that it never waits for the next.

A process that dies takes nothing along: its tasks go to a new one. The sample it was at is tried
once more, since a process may have been killed from outside; a sample that ends two processes is
rejected (`image-crashed-decoder`, or `image-timeout` where the time limit ended them). Whatever the
number of processes, the same samples come out.

The arena is memory without a name (`memfd_create`): /dev/shm is small in containers, and nothing is
left behind when this process is killed. Its slots are divided into lanes; each user of the pool
holds a lane, so that none waits for another's.
"""

import contextlib
import logging
import mmap
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from d2prune.embed.decode.decoder import Rejected
from d2prune.embed.decode.process import MARK, TIMEOUT_SIGNALS, WALL_FACTOR
from d2prune.embed.decode.tasks import TASKS_IN_HAND, Outcome, Task, Tasks
from d2prune.errors import D2PruneError, InfrastructureError
from d2prune.inputs import reasons
from d2prune.inputs.tar.reader import Sample

log = logging.getLogger(__name__)

_TRIES = 2
# A process that ends this often in a row before it is at any sample does so for a reason of its own.
_MAX_IDLE_DEATHS = 3


class Work(Protocol):
    """What a process does with a sample; picklable."""

    def setup(self) -> None:
        """Called once in each process."""
        ...

    def __call__(self, sample: Sample, into: memoryview) -> Outcome:
        """Decode the sample into its slot."""
        ...


class _Ended(Exception):
    """The decode process is no longer there."""


@dataclass(eq=False)
class _Process:
    popen: "subprocess.Popen[bytes]"
    connection: "Connection[Any, Any]"

    def end(self) -> int:
        """Kill it if it lives, and return how it ended."""
        self.connection.close()
        self.popen.kill()
        return self.popen.wait()


@dataclass(frozen=True)
class Lane:
    """A share of the arena: `pixels` is uint8 [slots, bytes of one picture]."""

    pool: "DecodePool"
    pixels: npt.NDArray[np.uint8]
    start: int

    def submit(self, samples: Sequence[tuple[int, Sample]]) -> "Future[list[Outcome]]":
        """Decode samples into slots of this lane.

        Args:
            samples: (slot, sample); a slot is the caller's again when the future is done.

        Returns:
            An outcome per sample. Raises InfrastructureError if processes cannot be started,
            D2PruneError if the work itself fails in a way that is no sample's fault.
        """
        slot_bytes = self.pixels.shape[1]
        return self.pool.submit([(self.start + slot * slot_bytes, sample) for slot, sample in samples])


class DecodePool:
    """See the module's text. Safe to use from several threads; `close` ends the processes.

    Attributes:
        slots: of one lane.
    """

    def __init__(
        self, work: Work, processes: int, slot_bytes: int, slots: int, lanes: int = 1, timeout_s: float = 30.0
    ) -> None:
        """Processes start with their first task.

        Args:
            work: what they do; goes to each by pickle.
            processes: how many.
            slot_bytes: size of one picture's pixels.
            slots: pictures that each lane holds.
            lanes: how many may use the pool side by side.
            timeout_s: processor time that one sample may take.
        """
        self.slots = slots
        self._work, self._timeout_s, self._slot_bytes = work, timeout_s, slot_bytes
        self._base = -(-processes * MARK.size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._file = _nameless_file(self._base + lanes * slots * slot_bytes)
        self._arena = mmap.mmap(self._file, 0)
        self._lanes: queue.SimpleQueue[int] = queue.SimpleQueue()
        for lane in range(lanes):
            self._lanes.put(lane)
        self._tasks = Tasks()
        self._number, self._lock = 0, threading.Lock()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, args=(index,), daemon=True, name=f"decode-{index}")
            for index in range(processes)
        ]
        self._processes: list[_Process | None] = [None] * processes
        for thread in self._threads:
            thread.start()

    @contextlib.contextmanager
    def lane(self) -> Iterator["Lane"]:
        """A lane for the caller alone; waits until one is free."""
        index = self._lanes.get()
        try:
            start = self._base + index * self.slots * self._slot_bytes
            rows = np.frombuffer(self._arena, np.uint8, self.slots * self._slot_bytes, start)
            yield Lane(self, rows.reshape(self.slots, self._slot_bytes), start)
        finally:
            self._lanes.put(index)

    def submit(self, samples: Sequence[tuple[int, Sample]]) -> "Future[list[Outcome]]":
        """Decode samples to where they belong in the arena; used through `Lane.submit`."""
        with self._lock:
            self._number += 1
            task = Task(self._number, samples)
        self._tasks.put(task)
        return task.future

    def close(self) -> None:
        """Kill the processes; futures that are not done fail."""
        self._closed = True
        for task in self._tasks.close():
            task.future.set_exception(self._stopped())
        for process in self._processes:
            if process is not None:
                process.popen.kill()
        for thread in self._threads:
            thread.join(timeout=10)
        with contextlib.suppress(OSError):
            os.close(self._file)

    def _serve(self, index: int) -> None:
        """One process's life, and that of those that replace it."""
        pending: deque[Task] = deque()
        sent = idle_deaths = 0
        while True:
            if (
                len(pending) < TASKS_IN_HAND
                and (task := self._tasks.take(0 if pending else None)) is not None
            ):
                pending.append(task)
                more = len(pending) < TASKS_IN_HAND
            else:
                more = False
            if not pending:
                break
            try:
                if self._processes[index] is None:
                    self._start(index)
                    sent = 0
                process = self._processes[index]
                assert process is not None
                for task in list(pending)[sent:]:
                    _send(process, task, self._slot_bytes)
                    sent += 1
                if more:
                    continue
                outcomes, failure = _receive(process, pending[0])
                if failure:
                    pending[0].future.set_exception(D2PruneError(f"decoding failed:\n{failure}"))
                else:
                    _finish(pending[0], outcomes)
                pending.popleft()
                sent, idle_deaths = sent - 1, 0
            except _Ended:
                idle_deaths = 0 if self._ended(index, pending) else idle_deaths + 1
                if self._closed or idle_deaths >= _MAX_IDLE_DEATHS:
                    why = InfrastructureError(
                        f"decode processes end at once ({sys.executable}); see their messages"
                    )
                    for task in pending:
                        task.future.set_exception(self._stopped() if self._closed else why)
                    pending.clear()
                    idle_deaths = 0
            except Exception as error:
                # A defect of this thread must reach whoever waits for the tasks.
                for task in pending:
                    if not task.future.done():
                        task.future.set_exception(error)
                raise
        if (process := self._processes[index]) is not None:
            process.end()

    @staticmethod
    def _stopped() -> InfrastructureError:
        return InfrastructureError("decode processes were stopped")

    def _start(self, index: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                popen = subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "d2prune.embed.decode.process",
                        str(theirs.fileno()),
                        str(self._file),
                        str(index * MARK.size),
                        str(self._timeout_s),
                    ],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), self._file),
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(_import_path()), "OMP_NUM_THREADS": "1"},
                )
            except OSError as error:
                ours.close()
                log.warning("no decode process could be started: %s", error)
                raise _Ended from error
        MARK.pack_into(self._arena, index * MARK.size, 0, -1)
        process = self._processes[index] = _Process(popen, Connection(ours.detach()))
        try:
            process.connection.send(self._work)
        except OSError as error:
            raise _Ended from error

    def _ended(self, index: int, pending: Sequence[Task]) -> bool:
        """Clears up after a process; True if it was at a sample, which has then one try less."""
        process, self._processes[index] = self._processes[index], None
        if process is None:
            return False
        code = process.end()
        if self._closed:
            return False
        number, at = MARK.unpack_from(self._arena, index * MARK.size)
        task = next((task for task in pending if task.number == number), None)
        if task is None or at < 0:
            log.warning("a decode process ended (%s); its work is done again", _how(code))
            return False
        at = task.left()[at]
        task.deaths[at] += 1
        key = task.samples[at][1].key
        log.warning("a decode process ended (%s) at sample %s", _how(code), key)
        if task.deaths[at] >= _TRIES:
            if -code in TIMEOUT_SIGNALS:
                limit = f"{self._timeout_s:g} s of processor time or {WALL_FACTOR * self._timeout_s:g} s"
                task.rejected[at] = Rejected(
                    reasons.IMAGE_TIMEOUT, f"not decoded within {limit}, tried twice"
                )
            else:
                detail = f"its decoder ended with {_how(code)}, tried twice"
                task.rejected[at] = Rejected(reasons.IMAGE_CRASHED_DECODER, detail)
        return True


def _send(process: _Process, task: Task, slot_bytes: int) -> None:
    samples = [(task.samples[index][0], slot_bytes, task.samples[index][1]) for index in task.left()]
    try:
        process.connection.send((task.number, samples))
    except OSError as error:
        raise _Ended from error


def _receive(process: _Process, task: Task) -> tuple[dict[int, Outcome], str]:
    try:
        outcomes, failure = process.connection.recv()
    except (EOFError, OSError) as error:
        raise _Ended from error
    return (dict(zip(task.left(), outcomes, strict=True)) if outcomes is not None else {}), failure


def _finish(task: Task, outcomes: dict[int, Outcome]) -> None:
    every = outcomes | task.rejected
    task.future.set_result([every[index] for index in range(len(task.samples))])


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"signal {-code} ({signal.Signals(-code).name})"
    return f"signal {-code}"


def _import_path() -> list[str]:
    """Where this process finds modules: `d2prune` and what the work needs, installed or not."""
    here = str(Path(__file__).resolve().parents[3])
    return [here, *(os.path.abspath(entry) for entry in sys.path if entry != here)]


def _nameless_file(size: int) -> int:
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("d2prune-pixels")
    else:
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    os.ftruncate(handle, size)
    return handle
