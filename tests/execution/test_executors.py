"""Both executors behave alike. The one on Ray runs on a local cluster."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from d2prune.errors import BooksError, D2PruneError, InfrastructureError, UserError, WorkerLostError
from d2prune.execution import InProcess, Resources, metrics
from d2prune.execution.ray_helpers import count_fitting_workers, share_helpers
from d2prune.execution.ray_pool import MAX_ATTEMPTS

ERRORS = {
    "storage": InfrastructureError("s3://bucket/x: unreachable"),
    "user": UserError("x.tar: no such key"),
    "books": BooksError("2 read, 1 written"),
}


@dataclass(frozen=True)
class Unit:
    key: str
    number: int


@dataclass(frozen=True)
class Squares:
    """Squares numbers, and logs each call to a file named after the unit.

    At number 3 it fails: `fault` is a key of `ERRORS`, `die` (at every call) or `die once`.
    """

    folder: str
    fault: str = ""

    def __call__(self, unit: Unit) -> tuple[str, int]:
        log = Path(self.folder, unit.key)
        first = not log.exists()
        with log.open("a") as stream:
            stream.write("called\n")
        if unit.number == 3:
            if self.fault == "die" or (self.fault == "die once" and first):
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault in ERRORS:
                raise ERRORS[self.fault]
        metrics.add(metrics.SAMPLES_REJECTED, unit.number, reason=f"of {unit.key}")
        return unit.key, unit.number**2


@dataclass(frozen=True)
class MakeSquares:
    folder: str
    fault: str = ""

    def __call__(self) -> Squares:
        return Squares(self.folder, self.fault)


@dataclass(frozen=True)
class Member:
    """A member whose method `fail` raises, and which logs its calls."""

    folder: str

    def __call__(self, index: int) -> "Member":
        return self

    def ready(self) -> bool:
        return True

    def commit(self) -> str:
        return "committed"

    def fail(self) -> None:
        with Path(self.folder, "fail").open("a") as stream:
            stream.write("called\n")
        raise ERRORS["storage"]


class FailingMaker:
    """Makes neither workers nor members, because storage fails."""

    def __call__(self, *index: int) -> None:
        raise ERRORS["storage"]


@pytest.fixture(params=["in process", "ray"])
def executor(request):
    return InProcess() if request.param == "in process" else request.getfixturevalue("ray_executor")


UNITS = [Unit(f"u{number}", number) for number in range(7)]
EXPECTED = {f"u{number}": number**2 for number in range(7)}
TWO = Resources(workers=2)


def count_calls(folder: Path, name: str) -> int:
    return len((folder / name).read_text().splitlines())


@pytest.mark.parametrize("units_in_flight", [1, 2])
def test_every_unit_returns_its_result_once(executor, tmp_path, units_in_flight):
    before = metrics.total(metrics.SAMPLES_REJECTED)
    resources = Resources(workers=2, units_in_flight=units_in_flight)
    results = list(executor.map(MakeSquares(str(tmp_path)), UNITS, resources))
    assert len(results) == 7 and dict(results) == EXPECTED
    # Counters of workers arrive in the driver.
    assert metrics.total(metrics.SAMPLES_REJECTED) - before == sum(range(7))


def test_without_units_no_worker_is_built(executor):
    assert list(executor.map(FailingMaker(), [], TWO)) == []


# On Ray every case starts workers, which takes seconds: one case for each value there.
ERROR_CASES = [
    *(("in process", fault, units_in_flight) for fault in ERRORS for units_in_flight in (1, 2)),
    ("ray", "storage", 1),
    ("ray", "user", 2),
]


@pytest.mark.parametrize(("executor", "fault", "units_in_flight"), ERROR_CASES, indirect=["executor"])
def test_an_error_raised_by_a_unit_ends_the_run_without_a_second_attempt(
    executor, tmp_path, fault, units_in_flight
):
    expected = ERRORS[fault]
    prefix = "" if fault == "user" else "unit u3: "
    resources = Resources(workers=2, units_in_flight=units_in_flight)
    with pytest.raises(type(expected), match=f"^{prefix}{expected}$"):
        list(executor.map(MakeSquares(str(tmp_path), fault), UNITS, resources))
    assert count_calls(tmp_path, "u3") == 1


def test_an_error_while_a_worker_is_built_ends_the_run(executor):
    with pytest.raises(InfrastructureError, match="s3://bucket/x: unreachable"):
        list(executor.map(FailingMaker(), UNITS, TWO))


def test_a_worker_killed_on_ray_costs_only_its_unit(ray_executor, tmp_path):
    lost = metrics.total(metrics.WORKERS_LOST)
    assert dict(ray_executor.map(MakeSquares(str(tmp_path), "die once"), UNITS, TWO)) == EXPECTED
    assert count_calls(tmp_path, "u3") == 2
    assert metrics.total(metrics.WORKERS_LOST) - lost == 1


def test_a_unit_that_kills_every_worker_on_ray_ends_the_run(ray_executor, tmp_path):
    with pytest.raises(WorkerLostError, match="unit u3: worker lost"):
        list(ray_executor.map(MakeSquares(str(tmp_path), "die"), UNITS[3:4], TWO))
    assert count_calls(tmp_path, "u3") == MAX_ATTEMPTS


def test_an_error_raised_by_a_member_is_raised_without_a_second_attempt(executor, tmp_path):
    group = executor.group(Member(str(tmp_path)), 2, TWO)
    try:
        assert group.build([0, 1]) == {0: True, 1: True}
        assert group.call("commit", [0, 1]) == {0: "committed", 1: "committed"}
        with pytest.raises(InfrastructureError, match="s3://bucket/x: unreachable"):
            group.call("fail", [0])
    finally:
        group.close()
    assert count_calls(tmp_path, "fail") == 1


def test_an_error_while_a_member_is_built_is_raised(executor):
    group = executor.group(FailingMaker(), 1, TWO)
    try:
        with pytest.raises(D2PruneError, match="s3://bucket/x: unreachable"):
            group.build([0])
    finally:
        group.close()


@pytest.mark.ray
def test_a_node_that_joins_is_used_and_one_that_vanishes_costs_one_unit_per_worker(tmp_path):
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "PYTHONPATH": os.pathsep.join([str(root / "pipeline"), str(root)]),
    }
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "tests.execution.changing_cluster", str(tmp_path)]
    ran = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr[-2000:]
    facts = json.loads(ran.stdout.splitlines()[-1])
    assert facts["results"] == 24 and facts["joined node was used"]
    assert 0 < facts["results before the loss"] < 24
    # Two workers were on the node. A unit that had been sent but not started leaves no trace.
    assert facts["repeated runs"] <= 2 and facts["most attempts"] <= 2


def node(alive=True, **resources):
    return {"Alive": alive, "NodeID": "".join(sorted(resources)), "Resources": resources}


@pytest.mark.parametrize(
    ("wanted", "nodes", "expected"),
    [
        # Cores and GPUs must be on one node, and a share of a GPU never spans two GPUs.
        (Resources(num_cpus=4, num_gpus=1), [node(CPU=64), node(CPU=8, GPU=4)], 2),
        (Resources(num_cpus=1, num_gpus=0.3), [node(CPU=64, GPU=10)], 30),
        (Resources(num_cpus=1, num_gpus=0.5), [node(CPU=8, GPU=1), node(CPU=1, GPU=2)], 3),
        (Resources(num_cpus=1, num_gpus=2), [node(CPU=8, GPU=5)], 2),
        (Resources(num_cpus=2), [node(CPU=5), node(alive=False, CPU=8), node(GPU=1)], 2),
    ],
)
def test_workers_that_fit_are_counted_per_node(wanted, nodes, expected):
    assert count_fitting_workers(nodes, wanted) == expected


@pytest.mark.parametrize(("workers", "grows", "share"), [(1, True, 3), (1, False, 12), (100, False, 3)])
def test_workers_share_the_cores_of_nodes_without_a_gpu(workers, grows, share):
    nodes = [node(CPU=16, GPU=4), node(CPU=12), node(alive=False, CPU=9, x=1), node(memory=5)]
    resources = Resources(workers, num_cpus=4, num_gpus=1, grows=grows)
    assert share_helpers(nodes, resources) == {"CPU": share}
