"""Child processes of a benchmark: PYTHONPATH, and titles, CPU time and memory from /proc.

Shared by `chaos`, `decode_remote`, `scale` and `train_check`.
"""

import contextlib
import os
import threading
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[1]
PYTHONPATH = os.pathsep.join([str(ROOT / "pipeline"), str(ROOT)])
"""For a child process that imports `d2prune`, `benchmarks` or `tests` from this working tree."""


def descendants(ancestor: int) -> dict[int, str]:
    """Return process id -> command line, or title, of all descendants of a process."""
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


class RayWorkerMonitor:
    """Polls the Ray workers below this process while the `with` block runs.

    Attributes:
        seconds: process id -> CPU seconds.
        mib: process id -> peak memory in MiB.
    """

    def __init__(self, every_s: float = 0.5) -> None:
        """Poll at this interval; what a process does after its last poll is not counted."""
        self.seconds: dict[int, float] = {}
        self.mib: dict[int, float] = {}
        self._every_s, self._ended = every_s, threading.Event()
        self._thread = threading.Thread(target=self._poll_workers, daemon=True)

    def __enter__(self) -> "RayWorkerMonitor":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _poll_workers(self) -> None:
        while not self._ended.wait(self._every_s):
            for pid, title in descendants(os.getpid()).items():
                if title.startswith("ray::"):
                    with contextlib.suppress(OSError, IndexError, StopIteration):
                        self._read_usage(pid)

    def _read_usage(self, pid: int) -> None:
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        peak = next(line for line in status if line.startswith("VmHWM"))
        self.seconds[pid] = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        self.mib[pid] = int(peak.split()[1]) / 1024
