"""Race for the lease: of two runs started at the same moment on one work_dir, exactly one proceeds.

    python -m benchmarks.lease_race --tries 50

Two processes wait until both are about to take the lease, then start at the same moment. In every
attempt one must acquire the lease and the other must find it held; the winner then releases it.
Repeated on local files, on an S3 server with conditional puts (moto), and on one without (rclone).

Writes to a temporary folder. Prints one line per store; exits with 1 if any attempt ended
otherwise.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from d2prune.demo import s3_server

CONTENDER = """
import sys
from d2prune import store
from d2prune.store import lease
from d2prune.errors import BusyError
store.list_files(sys.argv[1])
while True:
    print("ready", flush=True)
    if not sys.stdin.readline():
        break
    try:
        with lease.hold(sys.argv[1], 30.0, 0.5):
            print("acquired", flush=True)
            sys.stdin.readline()
    except BusyError:
        print("busy", flush=True)
        sys.stdin.readline()
"""


def race(work_dir: str, attempts: int) -> Counter[str]:
    """Run the race and return how often each outcome occurred, such as `acquired busy`."""
    command = [sys.executable, "-c", CONTENDER, work_dir]
    pair = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    outcomes: Counter[str] = Counter()

    def release(process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()

    def read_state(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    try:
        for _ in range(attempts):
            for process in pair:
                assert read_state(process) == "ready"
            for process in pair:
                release(process)
            outcomes[" ".join(sorted(read_state(process) for process in pair))] += 1
            for process in pair:
                release(process)
    finally:
        for process in pair:
            process.communicate(timeout=60)
    return outcomes


def main() -> int:
    """Run the race on every store and print the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=50, help="attempts per store (%(default)s)")
    attempts = parser.parse_args().tries
    from tests.s3 import moto_server

    with tempfile.TemporaryDirectory() as folder:
        stores = {
            "local files": contextlib.nullcontext(),
            "conditional puts (moto)": moto_server(),
            "no conditional puts (rclone)": s3_server.serve(Path(folder) / "s3"),
        }
        good = True
        for name, serve in stores.items():
            with serve as server, contextlib.ExitStack() as stack:
                work_dir = f"{folder}/work"
                if server is not None:
                    stack.enter_context(s3_server.environment(server))
                    work_dir = f"{server.make_bucket('bucket')}/work"
                start = time.monotonic()
                outcomes = race(work_dir, attempts)
            good = good and outcomes == {"acquired busy": attempts}
            print(f"{name}: {dict(outcomes)} in {time.monotonic() - start:.1f} s", flush=True)
    print("exactly one run proceeded in every attempt" if good else "FAILED: see the outcomes above")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
