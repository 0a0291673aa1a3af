"""Two runs started at the same moment on one work_dir, again and again, against each kind of store: exactly one works.

python -m benchmarks.lease_race --tries 50

Each try starts two processes, waits until both stand at the lease, and lets them go with one byte
each. The loser must find the lease held; the winner ends, and the next try begins with the token one higher.
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
storage.list_files(sys.argv[1])
while True:
    print("ready", flush=True)
    if not sys.stdin.readline():
        break
    try:
        with lease.hold(sys.argv[1], 30.0, 0.5):
            print("mine", flush=True)
            sys.stdin.readline()
    except BusyError:
        print("busy", flush=True)
        sys.stdin.readline()
"""


def race(place: str, tries: int) -> Counter[str]:
    """Outcomes such as `busy mine`, and how often each came."""
    command = [sys.executable, "-c", CONTENDER, place]
    pair = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    outcomes: Counter[str] = Counter()

    def tell(process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()

    def hear(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    try:
        for _ in range(tries):
            for process in pair:
                assert hear(process) == "ready"
            for process in pair:
                tell(process)
            outcomes[" ".join(sorted(hear(process) for process in pair))] += 1
            for process in pair:
                tell(process)
    finally:
        for process in pair:
            process.communicate(timeout=60)
    return outcomes


def main() -> int:
    """Race in every store and print the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=50)
    tries = parser.parse_args().tries
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
                place = f"{folder}/work"
                if server is not None:
                    stack.enter_context(s3_server.environment(server))
                    place = f"{server.make_bucket('bucket')}/work"
                start = time.monotonic()
                outcomes = race(place, tries)
            good = good and outcomes == {"busy mine": tries}
            print(f"{name}: {dict(outcomes)} in {time.monotonic() - start:.1f} s", flush=True)
    print("exactly one each time" if good else "NOT exactly one each time")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
