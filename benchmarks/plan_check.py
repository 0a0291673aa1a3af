"""Times predicted by `d2prune plan --calibrate`, compared with actual runs on several pools.

    python -m benchmarks.plan_check --copies 2 4 8 --cpu

Repeats the bundled pool under new uids, and with new captions so that no two embeddings are equal.
The plan is calibrated on the first shards of the smallest pool. Each pool is then filtered by one
worker in a fresh process, and its seconds are compared with the plan. On a machine with other load,
`--cpu` compares CPU seconds (of the worker and its decode processes) instead of wall seconds.

Writes to a temporary folder and prints a markdown table. Exits with 1 if a complete run deviates
from its plan by more than 30 %.
"""

import argparse
import dataclasses
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import yaml

from d2prune.config.model import RunConfig
from d2prune.estimate.costs import Fleet, make_plan
from d2prune.estimate.workload import make_workload
from d2prune.runs import driver
from d2prune.runs.calibrate import calibrate

CLOCK = "PLAN_CHECK_CLOCK"
ROOT = Path(__file__).resolve().parents[1]
POOL = ROOT / "pipeline" / "d2prune" / "bundled" / "pool"
RUN = """
import sys, json
import benchmarks.plan_check
from d2prune.config.model import RunConfig
from d2prune.execution import InProcess
from d2prune.runs.driver import run
print(json.dumps(dict(run(RunConfig.load(sys.argv[1]), InProcess()).seconds)))
"""


class CpuClock:
    """Replaces the driver's clock: CPU seconds of this process and of its finished children."""

    @staticmethod
    def monotonic() -> float:
        """Return the CPU seconds so far."""
        used = os.times()
        return used.user + used.system + used.children_user + used.children_system


# At import, since both the calibration and the script of each run import this module in a new
# process.
if os.environ.get(CLOCK) == "cpu":
    driver.time = CpuClock  # type: ignore[attr-defined]


def repeat_pool(folder: Path, copies: int) -> Path:
    """Write the bundled pool several times, each copy with other captions and uids."""
    folder.mkdir(parents=True)
    sources = sorted(POOL.glob("*.tar"))
    for copy in range(copies):
        for index, source in enumerate(sources):
            target = folder / f"{copy * len(sources) + index:08d}.tar"
            with tarfile.open(source) as old, tarfile.open(target, "w") as new:
                for member in old:
                    data = old.extractfile(member).read()  # type: ignore[union-attr]
                    if member.name.endswith(".txt"):
                        data += f" number {copy}".encode()
                    elif member.name.endswith(".json"):
                        record = json.loads(data)
                        record["uid"] = f"{copy:08x}{record['uid'][8:]}"
                        data = json.dumps(record).encode()
                    info = tarfile.TarInfo(member.name)
                    info.size = len(data)
                    new.addfile(info, io.BytesIO(data))
    return folder


def main() -> int:
    """Calibrate, predict, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--copies", type=int, nargs="+", default=[2, 4, 8], help="sizes of the pools")
    parser.add_argument("--shards", type=int, default=4, help="shards of the calibration (%(default)s)")
    parser.add_argument("--cpu", action="store_true", help="compare CPU seconds")
    options = parser.parse_args()
    if options.cpu and CLOCK not in os.environ:
        os.environ[CLOCK] = "cpu"
        return subprocess.run([sys.executable, "-m", "benchmarks.plan_check", *sys.argv[1:]]).returncode
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="d2prune-plan-check-") as folder:
        pools = [repeat_pool(Path(folder) / f"pool{copies}", copies) for copies in options.copies]
        values = {
            "embed": {"model": "demo"},
            "select": {"fraction": 0.3},
            "write": {"samples_per_shard": 500},
            "work_dir": f"{folder}/work",
            "output": f"{folder}/output",
        }
        found = calibrate(RunConfig.parse(values | {"input": str(pools[0])}, "check"), options.shards)
        print(f"{found.rates.source}\n")
        print(
            "| samples | stage | planned s | actual s | planned / actual |\n|---|---|---|---|---|", flush=True
        )
        for index, pool in enumerate(pools):
            paths = {
                "input": str(pool),
                "work_dir": f"{folder}/work{index}",
                "output": f"{folder}/output{index}",
            }
            config = RunConfig.parse(values | paths, "check")
            work = make_workload(config, None, found.pool)
            plans = {plan.stage: plan.wall_s for plan in make_plan(work, found.rates, Fleet(0, 1))}
            file = Path(folder) / f"run{index}.yaml"
            file.write_text(yaml.safe_dump(values | paths))
            start = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-c", RUN, str(file)], cwd=ROOT, check=True, capture_output=True
            )
            actual = json.loads(done.stdout.splitlines()[-1])
            for stage, planned in plans.items():
                figures = f"{planned:.1f} | {actual[stage]:.1f} | {planned / actual[stage]:.2f}"
                print(f"| {work.samples:,} | {stage} | {figures} |")
            planned, seconds = sum(plans.values()), sum(actual.values())
            figures = f"{planned:.1f} | {seconds:.1f} | **{planned / seconds:.2f}**"
            print(f"| {work.samples:,} | **all** | {figures} |", flush=True)
            worst = max(worst, abs(planned / seconds - 1))
            print(f"<!-- with start-up: {time.monotonic() - start:.1f} s; {dataclasses.asdict(work)} -->")
    print(f"\nlargest deviation of a complete run: {worst:.0%}")
    return 0 if worst <= 0.3 else 1


if __name__ == "__main__":
    sys.exit(main())
