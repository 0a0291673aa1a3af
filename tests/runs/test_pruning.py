"""Pruning deletes what only old runs need, and nothing that is in use."""

import contextlib
import itertools
import json
import shutil
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from d2prune import store
from d2prune.cli.main import main
from d2prune.errors import BusyError, UserError
from d2prune.execution import InProcess
from d2prune.index.build import build_index
from d2prune.runs import history, pruning, sharing
from d2prune.runs.artifact_kinds import fingerprint_of
from d2prune.runs.driver import run
from d2prune.runs.finished import open_run
from d2prune.store import artifacts, lease
from d2prune.verify.folder import verify
from tests.pools import tree


def test_pruning_to_one_run_leaves_what_that_run_alone_would_have_written(grow, configure, place, capsys):
    run(grow(2), InProcess())
    fixed_output = configure(
        select__fraction=0.5, input=str(place.with_name("pool")), output=str(place / "fixed")
    )
    run(fixed_output, InProcess())
    last = run(grow(3), InProcess())
    everything = tree(place / "work") | tree(place / "out")
    assert main(["runs", f"{place}/work", "--prune", "--keep", "1"]) == 0
    printed = capsys.readouterr().out
    assert "would be deleted" in printed
    assert f"artifacts only; you may delete the output {place}/fixed" in printed
    assert tree(place / "work") | tree(place / "out") == everything

    fixed = tree(place / "fixed")
    assert main(["runs", f"{place}/out", "--prune", "--keep", "1", "--yes"]) == 0
    assert "2 runs" in capsys.readouterr().out
    assert tree(place / "fixed") == fixed
    run_id = Path(last.output).name
    outputs = [path for path in (place / "out").iterdir() if any(path.rglob("*"))]
    assert sorted(path.name for path in outputs) == [sharing.FOLDER, run_id]
    assert [path.name[:16] for path in (place / "out" / sharing.FOLDER).iterdir()] == [run_id]
    left = tree(place / "work")
    assert verify(last.output, full=True) == []

    shutil.rmtree(place / "out")
    shutil.rmtree(place / "work")
    run(grow(3), InProcess())
    assert tree(place / "work").keys() == left.keys()


def interrupt_at(monkeypatch, step, prune) -> bool:
    """Interrupt a pruning before its write or deletion of one object number `step`; False: it has ended."""
    count = itertools.count(1)
    reached = False

    def check() -> None:
        nonlocal reached
        if reached or next(count) == step:
            reached = True
            raise KeyboardInterrupt

    def delete(urls) -> None:
        for url in urls:
            check()
            store.delete([url])

    def write_bytes(url, data) -> None:
        check()
        store.write_bytes(url, data)

    functions = {name: getattr(store, name) for name in store.__all__}
    stub = types.SimpleNamespace(**functions | {"delete": delete, "write_bytes": write_bytes})
    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(pruning, "store", stub)
        patch.setattr(pruning, "ThreadPoolExecutor", lambda n: ThreadPoolExecutor(1))
        prune()
    return reached


def test_interrupted_pruning_resumes(grow, place, monkeypatch):
    run(grow(1), InProcess())
    run(grow(2), InProcess())
    work = str(place / "work")

    everything = place / "everything"
    for folder in ("work", "out"):
        shutil.copytree(place / folder, everything / folder)
    assert pruning.prune(work, 1).remarks == ()
    pruned = tree(place / "work") | tree(place / "out")
    for step in range(1, 10_000):
        for folder in ("work", "out"):
            shutil.rmtree(place / folder)
            shutil.copytree(everything / folder, place / folder)
        if not interrupt_at(monkeypatch, step, lambda: pruning.prune(work, 1)):
            break
        assert len(history.read_runs(work)) == 2
        assert pruning.prune(work, 1).remarks == ()
        assert tree(place / "work") | tree(place / "out") == pruned
    assert step > 40
    assert len(history.read_runs(work)) == 1
    for stage in ("graph", "rank", "select", "write"):
        (manifest,) = Path(work, stage).glob("*/manifest.json")
        listed = {unit["key"] for unit in json.loads(manifest.read_text())["units"]}
        stored = {path.parent.name for path in Path(work, stage).glob("units/*/*")}
        assert all(key.startswith("whole") for key in stored - listed)
    assert not list(Path(work).rglob(pruning.PRUNED))


def test_artifacts_that_no_finished_run_lists_are_kept(grow, configure, place):
    run(grow(1), InProcess())
    run(grow(2), InProcess())
    work = str(place / "work")
    run(configure(embed__batch_size=8), InProcess(), stop_after="embed")
    pruning.prune(work, 1)
    manifests = [json.loads(path.read_text()) for path in Path(work, "embed").glob("*/manifest.json")]
    assert sorted(manifest["params"]["batch_size"] for manifest in manifests) == [8, 16]
    for manifest in manifests:
        for unit in manifest["units"]:
            assert artifacts.read_receipt(f"{work}/embed", unit["key"]) is not None


def test_pruning_is_refused_during_a_run_and_below_one_run_to_keep(place):
    work = str(place / "work")
    with lease.hold(work), pytest.raises(BusyError):
        pruning.prune(work, 1)
    with pytest.raises(UserError, match="--keep 0: expected at least 1"):
        pruning.plan_pruning(work, 0)


def test_the_index_of_a_graph_is_deleted_with_it(finish, place):
    finish(2, 3)
    work = f"{place}/work"
    entries = [entry for _, entry in history.read_runs(work)]
    for number, entry in enumerate(entries):
        # The first with its merged view elsewhere, and without one.
        output = str(place / "merged") if number else None
        build_index(open_run(work, entry.artifacts["select"]), output)
    (place / "work" / "index" / "notes.txt").write_text("mine")
    left = pruning.prune(work, 1)
    assert len(left.entries) == 1 and left.remarks == ()
    manifests = [path.parent.name for path in (place / "work" / "index").glob("*/manifest.json")]
    assert manifests == [fingerprint_of(entries[0].artifacts["graph"])]
    files = tree(place / "work" / "index")
    assert len([name for name in files if name.endswith("lists.ivfdata")]) == 1
    assert "notes.txt" in files
    before = tree(place / "work")
    build_index(open_run(work))
    again = tree(place / "work")
    assert {name for name in before | again if before.get(name) != again.get(name)} <= {
        name for name in before | again if name.startswith(".lease/")
    }
