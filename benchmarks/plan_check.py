"""What `d2prune plan --calibrate` says against what the run then takes, for pools of three sizes.

python -m benchmarks.plan_check --copies 2 4 8

The demo's pool is repeated under new uids (new captions too, so that no row is a copy of another's
embedding). The calibration sees the first shards of the smallest pool; each pool is then filtered
by one worker in a fresh process, and its seconds are compared with the plan's. On a machine that
does other things too, `--cpu` compares CPU seconds (of the worker and its decode processes) instead.
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
from d2prune.estimate.calibrate import calibrate
from d2prune.estimate.costs import Fleet, make_plan
from d2prune.estimate.workload import make_workload
from d2prune.runs import driver

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
    """Stands for the driver's clock: CPU seconds of this process and of those it has ended."""

    @staticmethod
    def monotonic() -> float:
        """CPU seconds so far."""
        used = os.times()
        return used.user + used.system + used.children_user + used.children_system


if os.environ.get(CLOCK) == "cpu":  # Here, as the calibration and each run have processes of their own.
    driver.time = CpuClock  # type: ignore[attr-defined]


def repeat(folder: Path, copies: int) -> Path:
    """The demo's pool so many times; each copy says so in its captions and has uids of its own."""
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
    parser.add_argument("--copies", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--shards", type=int, default=4, help="that the calibration runs (%(default)s)")
    parser.add_argument("--cpu", action="store_true", help="compare CPU seconds")
    options = parser.parse_args()
    if options.cpu and CLOCK not in os.environ:
        os.environ[CLOCK] = "cpu"
        return subprocess.run([sys.executable, "-m", "benchmarks.plan_check", *sys.argv[1:]]).returncode
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="d2prune-plan-check-") as place:
        pools = [repeat(Path(place) / f"pool{copies}", copies) for copies in options.copies]
        values = {
            "embed": {"model": "demo"},
            "select": {"fraction": 0.3},
            "write": {"samples_per_shard": 500},
            "work_dir": f"{place}/work",
            "output": f"{place}/output",
        }
        found = calibrate(RunConfig.parse(values | {"input": str(pools[0])}, "check"), options.shards)
        print(f"{found.rates.source}\n")
        print("| samples | stage | planned s | took s | planned / took |\n|---|---|---|---|---|", flush=True)
        for index, pool in enumerate(pools):
            here = {
                "input": str(pool),
                "work_dir": f"{place}/work{index}",
                "output": f"{place}/output{index}",
            }
            config = RunConfig.parse(values | here, "check")
            work = make_workload(config, None, found.pool)
            plans = {plan.stage: plan.wall_s for plan in make_plan(work, found.rates, Fleet(0, 1))}
            file = Path(place) / f"run{index}.yaml"
            file.write_text(yaml.safe_dump(values | here))
            start = time.monotonic()
            said = subprocess.run(
                [sys.executable, "-c", RUN, str(file)], cwd=ROOT, check=True, capture_output=True
            )
            took = json.loads(said.stdout.splitlines()[-1])
            for stage, planned in plans.items():
                print(
                    f"| {work.samples:,} | {stage} | {planned:.1f} | {took[stage]:.1f} | {planned / took[stage]:.2f} |"
                )
            planned, seconds = sum(plans.values()), sum(took.values())
            print(
                f"| {work.samples:,} | **all** | {planned:.1f} | {seconds:.1f} | **{planned / seconds:.2f}** |",
                flush=True,
            )
            worst = max(worst, abs(planned / seconds - 1))
            print(f"<!-- with start: {time.monotonic() - start:.1f} s; {dataclasses.asdict(work)} -->")
    print(f"\nlargest deviation of a whole run: {worst:.0%}")
    return 0 if worst <= 0.3 else 1


if __name__ == "__main__":
    sys.exit(main())
