"""Another work_dir starts the same run while an output is pruned: it keeps, or gets, a complete output."""

import shutil

import pytest

from d2prune import store
from d2prune.config.model import RunConfig
from d2prune.errors import BusyError
from d2prune.execution import InProcess
from d2prune.output import claim
from d2prune.runs import pruning
from d2prune.runs.driver import run
from d2prune.store import lease
from d2prune.verify.folder import verify
from tests.pools import tree
from tests.tables import make_rows, write_columns


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished runs of work_dir `one`, and the first run up to its output from work_dir `two`."""
    root = tmp_path_factory.mktemp("races")
    for files in (1, 2):
        write_columns(root / f"pool{files}", [make_rows(30, i) for i in range(files)])

    def configure(work, files):
        values = {
            "input": str(root / f"pool{files}"),
            "work_dir": str(root / "disk" / work),
            "output": str(root / "disk" / "out" / "{run_id}"),
            "graph": {"n_neighbors": 4},
            "select": {"fraction": 0.3},
            "report": {"gallery": 4},
        }
        return RunConfig.parse(values, "test")

    output = run(configure("one", 1), InProcess()).output
    run(configure("two", 1), InProcess(), stop_after="select")
    run(configure("one", 2), InProcess())
    shutil.copytree(root / "disk", root / "copy")
    return root, configure("two", 1), output


@pytest.fixture
def two(runs):
    """Work_dir `one`, the run from work_dir `two`, and its output."""
    root, config, output = runs
    shutil.rmtree(root / "disk")
    shutil.copytree(root / "copy", root / "disk")
    return str(root / "disk" / "one"), lambda: run(config, InProcess()), output


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
        assert tree(output) == (before if kept else {})
    else:
        # The run has found its output complete, or has written it again.
        assert tree(output) == before
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
