"""Units that are complete are not run again."""

from dataclasses import dataclass

from d2prune.execution import InProcess, Resources, metrics
from d2prune.stage.units import Work, run_units
from d2prune.store.artifacts import Receipt


@dataclass(frozen=True)
class Unit:
    key: str


def make_receipt(unit: Unit) -> Receipt:
    return Receipt(unit.key, ())


def test_only_units_that_are_left_are_run_and_counted(tmp_path):
    units = [Unit(f"u{number}") for number in range(5)]
    complete = {unit.key: make_receipt(unit) for unit in units[1:4]}
    run = []

    def work(unit):
        run.append(unit.key)
        return make_receipt(unit)

    before = [metrics.total(name) for name in (metrics.UNITS_PLANNED, metrics.UNITS_DONE)]
    task = Work("count", str(tmp_path), units, lambda: work, Resources(workers=1), complete)
    assert [receipt.key for receipt in run_units(task, InProcess())] == [unit.key for unit in units]
    assert run == ["u0", "u4"]
    after = [metrics.total(name) for name in (metrics.UNITS_PLANNED, metrics.UNITS_DONE)]
    assert [now - then for now, then in zip(after, before, strict=True)] == [2, 2]
