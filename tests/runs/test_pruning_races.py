"""Another work_dir starts the same run while an output is pruned: it keeps, or gets, a complete output."""

import pytest

from d2prune import store
from d2prune.errors import BusyError
from d2prune.execution import InProcess
from d2prune.output import claim
from d2prune.runs import pruning
from d2prune.runs.driver import run
from d2prune.store import lease
from d2prune.verify.folder import verify
from tests.pools import tree


@pytest.fixture
def two(grow, tmp_path, monkeypatch):
    """Two finished runs of work_dir `one`; the first run again, from work_dir `two`; its output."""
    in_work_dir = lambda shards, name: grow(shards).model_copy(  # noqa: E731
        update={"work_dir": str(tmp_path / name)}
    )
    old = run(in_work_dir(1, "one"), InProcess()).output
    new = in_work_dir(1, "two")
    # Its artifacts are there, so that it starts with the output.
    run(new, InProcess(), stop_after="select")
    run(in_work_dir(2, "one"), InProcess())
    (tmp_path / "pool" / "00000001.tar").unlink()
    return str(tmp_path / "one"), lambda: run(new, InProcess()), old


MOMENTS = ("plan_pruning", "_set_record_aside", "_find_other_users", "_delete_folder")


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("after", [False, True])
def test_a_run_that_starts_during_the_pruning_of_its_output(two, monkeypatch, moment, after):
    one, start, output = two
    before = tree(output)
    results = []

    def start_once():
        if not results:
            results.append(None)
            try:
                results.append(start())
            except BusyError as error:
                results.append(error)

    original = getattr(pruning, moment)

    def interleaved(*arguments):
        concerns_output = moment == "plan_pruning" or output in str(arguments)
        if concerns_output and not after:
            start_once()
        value = original(*arguments)
        if concerns_output and after:
            start_once()
        return value

    monkeypatch.setattr(pruning, moment, interleaved)
    found = pruning.prune(one, 1)
    monkeypatch.undo()
    kept = [line for line in found.remarks if line.startswith(f"{output}: left alone: ")]
    if isinstance(results[-1], BusyError):
        assert f"output {output}: another run is in progress there" in str(results[-1])
    else:
        # The run was told that its output is complete, so it is.
        assert kept and tree(output) == before
    assert bool(kept) == bool(store.list_entries(output))
    start()
    assert tree(output) == before and verify(output, full=True) == []


def test_an_output_that_another_process_writes_is_left_alone(two):
    one, _, output = two
    before = tree(output)
    with claim.hold(output, claim.read_owner(output)):
        found = pruning.prune(one, 1)
    (line,) = (line for line in found.remarks if line.startswith(f"{output}: left alone: "))
    assert "another run is in progress there" in line
    assert tree(output) == before


def test_two_runs_of_one_output_do_not_write_it_at_once(two):
    _, start, output = two
    store.delete([f"{output}/manifest.json"])
    with lease.hold(output, label="output"), pytest.raises(BusyError, match=f"output {output}: another run"):
        start()
