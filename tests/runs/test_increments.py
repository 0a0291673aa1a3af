"""Increments beside other runs and pruning in one work_dir, and in one from before there were any."""

import json
import logging
import shutil

import pytest

from d2prune.execution import InProcess
from d2prune.graph import stage
from d2prune.graph.params import Layout
from d2prune.runs import driver, pruning
from d2prune.runs.driver import run
from d2prune.store import artifacts, lease
from d2prune.store.artifacts import MANIFEST
from tests.table_nights import Nights
from tests.tables import make_rows

LISTS = {"nlist": 4, "nprobe": 2, "n_neighbors": 3}
SHARDS = {name: make_rows(40, seed) for seed, name in enumerate("abc")}


@pytest.fixture
def nights(tmp_path, monkeypatch):
    """A work_dir with one finished run; small pools are built in steps, which is what increments need."""
    monkeypatch.setattr(stage, "Layout", lambda **given: Layout(whole_below=0, partitions=2, **given))
    nights = Nights(tmp_path)
    nights.run(SHARDS, graph=LISTS)
    return nights


def build_full(nights, config, graph):
    """The graph that a fresh work_dir builds with the same quantiser."""
    named = f"{nights.folder}/work/graph/{graph.fingerprint}"
    changes = {"work_dir": f"{nights.folder}/check"}
    changes["graph"] = config.graph.model_copy(update={"quantiser": named})
    return run(config.model_copy(update=changes), InProcess(), stop_after="graph").manifests["graph"]


@pytest.mark.parametrize("quantiser", ["auto", "new"])
def test_a_run_that_was_planned_before_another_one_pruned_its_start(nights, monkeypatch, caplog, quantiser):
    hold, others = lease.hold, []

    def hold_after_another_run(*arguments, **options):
        if not others:
            others.append(True)
            # Another run filters a part of the pool, and what it does not need is pruned.
            graph = config.graph.model_copy(update={"quantiser": quantiser})
            part = [f"{nights.folder}/pool/{name}.parquet" for name in "ab"]
            run(config.model_copy(update={"input": part, "graph": graph}), InProcess())
            pruning.prune(f"{nights.folder}/work", 1)
        return hold(*arguments, **options)

    shards = SHARDS | {"y": make_rows(40, 9)}
    config = nights.configure(shards, graph=LISTS)
    monkeypatch.setattr(driver.lease, "hold", hold_after_another_run)
    with caplog.at_level(logging.INFO):
        found = run(config, InProcess()).manifests["graph"]
    # With `new` lists the other run left none of those that this one was planned with, so it plans again.
    assert sum("graph: from graph " in line for line in caplog.messages[-12:]) == 1
    assert build_full(nights, config, found) == found


def test_pruning_keeps_a_chain_of_increments_going(nights, caplog):
    shards = dict(SHARDS)
    for number, (gone, new) in enumerate(zip("abc", "xyz", strict=True)):
        del shards[gone]
        shards[new] = make_rows(40, 20 + number)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            record, _ = nights.run(shards, graph=LISTS)
        assert "graph: from graph " in caplog.text
        assert record.earlier.manifests
        pruning.prune(record.work_dir, 1)
    # One quantiser serves the chain, and only the last night's state is left.
    units = nights.folder / "work" / "graph" / "units"
    assert len(list(units.glob("trained-*/receipt.json"))) == 1
    assert len(list(units.glob("state-*/receipt.json"))) == len(shards)


def test_a_work_dir_from_before_increments_continues_with_one_line(nights, caplog):
    folder = nights.folder / "work" / "graph"
    for path in (*folder.glob("latest-*.json"), *folder.glob("units/*")):
        if path.is_file():
            path.unlink()
        elif path.name.startswith(("trained-", "state-", "checked-")):
            shutil.rmtree(path)
    (manifest,) = folder.glob(f"*/{MANIFEST}")
    value = artifacts.read_manifest(str(folder), manifest.parent.name)
    del value.facts["quantiser"]
    artifacts.commit_manifest(str(folder), value)
    assert "quantiser" not in json.loads(manifest.read_text())["facts"]
    shards = SHARDS | {"d": make_rows(40, 5)}
    with caplog.at_level(logging.INFO):
        record, _ = nights.run(shards, graph=LISTS)
        assert record.earlier is not None
        line = "graph: built in full, since the earlier graphs here kept no lists; later runs continue it"
        assert caplog.messages.count(line) == 1
        assert not [message for message in caplog.records if message.levelno >= logging.WARNING]
        caplog.clear()
        nights.run(shards | {"e": make_rows(40, 6)}, graph=LISTS)
    assert "graph: from graph " in caplog.text and "kept no lists" not in caplog.text
