"""Processes below one of ours, from /proc: their titles, and what they have taken in CPU time and memory."""

import contextlib
import os
import threading
from pathlib import Path
from types import TracebackType


def below(ancestor: int) -> dict[int, str]:
    """Command line, or title, by process id of all that descend from `ancestor`."""
    parents, titles = {}, {}
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            with contextlib.suppress(OSError, IndexError):
                parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                titles[int(path.name)] = (path / "cmdline").read_text().replace("\0", " ")

    def descends(pid: int) -> bool:
        while pid in parents and pid != ancestor:
            pid = parents[pid]
        return pid == ancestor

    return {pid: title for pid, title in titles.items() if pid != ancestor and descends(pid)}


class Watch:
    """While the block runs: of each Ray worker below this process, CPU seconds and the most MiB it has held.

    Attributes:
        seconds: by process id.
        mib: by process id.
    """

    def __init__(self, every_s: float = 0.5) -> None:
        """Look so often; what a process did after the last look is not seen."""
        self.seconds: dict[int, float] = {}
        self.mib: dict[int, float] = {}
        self._every_s, self._ended = every_s, threading.Event()
        self._thread = threading.Thread(target=self._look_again, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _look_again(self) -> None:
        while not self._ended.wait(self._every_s):
            for pid, title in below(os.getpid()).items():
                if title.startswith("ray::"):
                    with contextlib.suppress(OSError, IndexError, StopIteration):
                        self._look(pid)

    def _look(self, pid: int) -> None:
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        peak = next(line for line in status if line.startswith("VmHWM"))
        self.seconds[pid] = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        self.mib[pid] = int(peak.split()[1]) / 1024
