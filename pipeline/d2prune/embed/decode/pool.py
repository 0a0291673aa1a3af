"""Long-lived decode processes that write pixels into shared memory. No image can stop the pool.

A task is a few samples, each with a slot of the arena. The task's future receives one `DecodedSample`
or `Reject` per sample, in order. One thread per process keeps two tasks in flight, so that the
process never waits for the next.

When a process dies, its tasks go to a new process. The sample that it was decoding is tried once
more, since the process may have been killed from outside; a sample that ends two processes is
rejected (`image-crashed-decoder`, or `image-timeout` if the time limit ended them). The outcomes do
not depend on the number of processes.

The arena is anonymous memory (`memfd_create`): /dev/shm is small in containers, and nothing is left
behind when this process is killed. Its slots are divided into lanes. Each user of the pool holds a
lane, so that no user waits for another's slots.
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

from d2prune.embed.decode.process import MARK, TIMEOUT_SIGNALS, WALL_FACTOR
from d2prune.embed.decode.task_queue import TASKS_IN_FLIGHT, DecodeTask, Outcome, TaskQueue
from d2prune.errors import D2PruneError, InfrastructureError
from d2prune.inputs import rejects
from d2prune.inputs.rejects import Reject
from d2prune.inputs.tar.reader import TarSample

log = logging.getLogger(__name__)

_MAX_ATTEMPTS = 2
# A process that dies this often in a row before it reaches a sample is not failing because of a sample.
_MAX_IDLE_DEATHS = 3


class SampleDecoder(Protocol):
    """What a process does with a sample; picklable."""

    def setup(self) -> None:
        """Prepare; called once in each process."""
        ...

    def __call__(self, sample: TarSample, into: memoryview) -> Outcome:
        """Decode one sample into its slot."""
        ...


class _ProcessDied(Exception):
    """The decode process no longer exists."""


@dataclass(eq=False)
class _Process:
    popen: "subprocess.Popen[bytes]"
    connection: "Connection[Any, Any]"

    def end(self) -> int:
        """Kill the process if it is alive, and return its exit code."""
        self.connection.close()
        self.popen.kill()
        return self.popen.wait()


@dataclass(frozen=True)
class Lane:
    """A share of the arena for one user of the pool.

    Attributes:
        pool: that decodes.
        pixels: uint8 [slots, bytes of a slot].
        start: offset of the lane in the arena.
    """

    pool: "DecodePool"
    pixels: npt.NDArray[np.uint8]
    start: int

    def submit(self, samples: Sequence[tuple[int, TarSample]]) -> "Future[list[Outcome]]":
        """Decode samples into slots of this lane.

        Args:
            samples: (slot, sample); a slot belongs to the pool until the future is done.

        Returns:
            A future of one outcome per sample. It raises InfrastructureError if processes cannot be
            started, and D2PruneError if the decoder has a defect.
        """
        slot_bytes = self.pixels.shape[1]
        return self.pool.submit([(self.start + slot * slot_bytes, sample) for slot, sample in samples])


class DecodePool:
    """See the module docstring. Safe to use from several threads; `close` ends the processes.

    Attributes:
        slots: in each lane.
    """

    def __init__(
        self,
        decoder: SampleDecoder,
        processes: int,
        slot_bytes: int,
        slots: int,
        lanes: int = 1,
        timeout_s: float = 30.0,
    ) -> None:
        """Set up the arena; each process starts with its first task.

        Args:
            decoder: is pickled and sent to each process.
            processes: how many.
            slot_bytes: size of a slot: the pixels of one sample.
            slots: in each lane.
            lanes: how many users the pool can have at a time.
            timeout_s: processor time that one sample may take.
        """
        self.slots = slots
        self._decoder, self._timeout_s, self._slot_bytes = decoder, timeout_s, slot_bytes
        self._base = -(-processes * MARK.size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._file = _create_anonymous_file(self._base + lanes * slots * slot_bytes)
        self._arena = mmap.mmap(self._file, 0)
        self._lanes: queue.SimpleQueue[int] = queue.SimpleQueue()
        for lane in range(lanes):
            self._lanes.put(lane)
        self._tasks = TaskQueue()
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
        """Hold a lane; waits until one is free."""
        index = self._lanes.get()
        try:
            start = self._base + index * self.slots * self._slot_bytes
            rows = np.frombuffer(self._arena, np.uint8, self.slots * self._slot_bytes, start)
            yield Lane(self, rows.reshape(self.slots, self._slot_bytes), start)
        finally:
            self._lanes.put(index)

    def submit(self, samples: Sequence[tuple[int, TarSample]]) -> "Future[list[Outcome]]":
        """Decode samples to the given offsets in the arena; called by `Lane.submit`."""
        with self._lock:
            self._number += 1
            task = DecodeTask(self._number, samples)
        if not self._tasks.put(task):
            # No thread would finish it. A helper may be closed while its own thread submits a task.
            task.future.set_exception(self._closed_error())
        return task.future

    def close(self) -> None:
        """Kill the processes; futures that are not done fail."""
        self._closed = True
        for task in self._tasks.close():
            task.future.set_exception(self._closed_error())
        for process in self._processes:
            if process is not None:
                process.popen.kill()
        for thread in self._threads:
            thread.join(timeout=10)
        with contextlib.suppress(OSError):
            os.close(self._file)

    def _serve(self, index: int) -> None:
        """Keep process `index` busy, and replace it when it dies, until the queue is closed."""
        pending: deque[DecodeTask] = deque()
        sent = idle_deaths = 0
        while True:
            took_task = False
            if len(pending) < TASKS_IN_FLIGHT:
                task = self._tasks.take(0 if pending else None)
                if task is not None:
                    pending.append(task)
                    took_task = True
            if not pending:
                break
            try:
                if self._processes[index] is None:
                    self._start_process(index)
                    sent = 0
                process = self._processes[index]
                assert process is not None
                for task in list(pending)[sent:]:
                    _send_task(process, task, self._slot_bytes)
                    sent += 1
                if took_task and len(pending) < TASKS_IN_FLIGHT:
                    continue
                outcomes, failure = _receive_outcomes(process, pending[0])
                if failure:
                    pending[0].future.set_exception(D2PruneError(f"decoding failed:\n{failure}"))
                else:
                    _finish_task(pending[0], outcomes)
                pending.popleft()
                sent, idle_deaths = sent - 1, 0
            except _ProcessDied:
                idle_deaths = 0 if self._clean_up_process(index, pending) else idle_deaths + 1
                if self._closed or idle_deaths >= _MAX_IDLE_DEATHS:
                    error = InfrastructureError(
                        f"decode processes die at startup ({sys.executable}); see their messages above"
                    )
                    for task in pending:
                        task.future.set_exception(self._closed_error() if self._closed else error)
                    pending.clear()
                    idle_deaths = 0
            except Exception as error:
                # A defect of this thread must reach the callers that wait for these tasks.
                for task in pending:
                    if not task.future.done():
                        task.future.set_exception(error)
                raise
        if (process := self._processes[index]) is not None:
            process.end()

    @staticmethod
    def _closed_error() -> InfrastructureError:
        return InfrastructureError("decode processes were stopped")

    def _start_process(self, index: int) -> None:
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
                log.warning("could not start a decode process: %s", error)
                raise _ProcessDied from error
        MARK.pack_into(self._arena, index * MARK.size, 0, -1)
        process = self._processes[index] = _Process(popen, Connection(ours.detach()))
        try:
            process.connection.send(self._decoder)
        except OSError as error:
            raise _ProcessDied from error

    def _clean_up_process(self, index: int, pending: Sequence[DecodeTask]) -> bool:
        """Remove a dead process. Return whether it was decoding a sample, which then has one attempt less."""
        process, self._processes[index] = self._processes[index], None
        if process is None:
            return False
        code = process.end()
        if self._closed:
            return False
        number, at = MARK.unpack_from(self._arena, index * MARK.size)
        task = next((task for task in pending if task.number == number), None)
        if task is None or at < 0:
            log.warning("a decode process died (%s); its tasks go to a new process", _describe_exit(code))
            return False
        at = task.remaining()[at]
        task.deaths[at] += 1
        key = task.samples[at][1].key
        log.warning("a decode process died (%s) while decoding sample %s", _describe_exit(code), key)
        if task.deaths[at] >= _MAX_ATTEMPTS:
            task.rejected[at] = self._reject_fatal_sample(key, code)
        return True

    def _reject_fatal_sample(self, key: str, code: int) -> Reject:
        """Return the reject of a sample whose last process died with exit code `code`."""
        if -code in TIMEOUT_SIGNALS:
            limit = f"{self._timeout_s:g} s of processor time or {WALL_FACTOR * self._timeout_s:g} s"
            return Reject(key, rejects.IMAGE_TIMEOUT, f"not decoded within {limit}, tried twice")
        detail = f"its decoder ended with {_describe_exit(code)}, tried twice"
        return Reject(key, rejects.IMAGE_CRASHED_DECODER, detail)


def _send_task(process: _Process, task: DecodeTask, slot_bytes: int) -> None:
    samples = [(task.samples[index][0], slot_bytes, task.samples[index][1]) for index in task.remaining()]
    try:
        process.connection.send((task.number, samples))
    except OSError as error:
        raise _ProcessDied from error


def _receive_outcomes(process: _Process, task: DecodeTask) -> tuple[dict[int, Outcome], str]:
    try:
        outcomes, failure = process.connection.recv()
    except (EOFError, OSError) as error:
        raise _ProcessDied from error
    return (dict(zip(task.remaining(), outcomes, strict=True)) if outcomes is not None else {}), failure


def _finish_task(task: DecodeTask, outcomes: dict[int, Outcome]) -> None:
    all_outcomes = outcomes | task.rejected
    task.future.set_result([all_outcomes[index] for index in range(len(task.samples))])


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"signal {-code} ({signal.Signals(-code).name})"
    return f"signal {-code}"


def _import_path() -> list[str]:
    """Return where this process finds modules: `d2prune` and what the decoder needs, installed or not."""
    here = str(Path(__file__).resolve().parents[3])
    return [here, *(os.path.abspath(entry) for entry in sys.path if entry != here)]


def _create_anonymous_file(size: int) -> int:
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("d2prune-pixels")
    else:
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    os.ftruncate(handle, size)
    return handle
