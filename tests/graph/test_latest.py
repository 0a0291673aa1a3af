"""Runs take the quantiser of the latest graph of the same pool, which is an input of their graph."""

import logging
import shutil
from pathlib import Path

import pytest

from d2prune.errors import UserError
from d2prune.execution import InProcess
from d2prune.graph import latest, stage
from d2prune.graph.params import Layout
from d2prune.graph.trained import read_trained
from d2prune.runs import pruning
from d2prune.runs.driver import run
from d2prune.runs.plan import plan_run


@pytest.fixture
def grow(configure, pool, tmp_path, monkeypatch):
    """Returns a function that sets the shards of an input folder, and returns the configuration."""
    monkeypatch.setattr(stage, "Layout", lambda **given: Layout(whole_below=0, partitions=2, **given))
    folder = tmp_path / "pool"
    folder.mkdir()

    def _grow(*shards: int, **settings):
        for path in folder.iterdir():
            path.unlink()
        for number in shards:
            path = sorted(pool.glob("*.tar"))[number]
            shutil.copy2(path, folder)
        found = {"input": str(folder), "output": f"{tmp_path}/out/{{run_id}}", "work_dir": f"{tmp_path}/work"}
        return configure(**found | {"graph": {"nlist": 4, "nprobe": 2, "n_neighbors": 3}} | settings)

    return _grow


def find_inputs(config) -> dict[str, str]:
    return dict(plan_run(config)["graph"].inputs)


def read_graph_files(config, result) -> list[bytes]:
    folder = Path(config.work_dir) / "graph" / "units"
    return [
        (folder / unit.key / "neighbors.parquet").read_bytes() for unit in result.manifests["graph"].units
    ]


def build(config):
    return run(config, InProcess(), stop_after="graph")


def test_a_night_starts_from_the_last_and_equals_a_full_run_with_its_quantiser(grow, tmp_path, caplog):
    graph = build(grow(0, 2)).manifests["graph"]
    trained = graph.facts["quantiser"]
    assert "quantiser" not in graph.inputs
    # The same input again is the same artifact.
    assert "quantiser" not in find_inputs(grow(0, 2))
    with caplog.at_level(logging.INFO):
        second = build(grow(0, 1, 2))
    assert f"from graph {graph.fingerprint}: 1 of 3 parts are new" in caplog.text
    assert second.manifests["graph"].inputs["quantiser"] == trained == find_inputs(grow(0, 1, 2))["quantiser"]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        build(grow(0, 1, 2))
    assert "graph: already complete, skipped" in caplog.text

    # A full run elsewhere, with the quantiser of that graph.
    named = f"{tmp_path}/work/graph/{second.manifests['graph'].fingerprint}"
    check = grow(0, 1, 2, work_dir=f"{tmp_path}/check", graph__quantiser=named)
    full = build(check)
    assert full.manifests["graph"].fingerprint == second.manifests["graph"].fingerprint
    assert full.manifests["graph"] == second.manifests["graph"]
    assert read_graph_files(check, full) == read_graph_files(grow(0, 1, 2), second)


def test_an_increment_on_ray_equals_a_full_build_in_this_process(grow, tmp_path, ray_executor, caplog):
    graph = build(grow(0, 1, 2)).manifests["graph"]
    # One shard is removed, and one is added. Each of the seven steps starts its workers.
    config = grow(1, 2, 3, ray={"workers": 1})
    run(config, InProcess(), stop_after="embed")
    with caplog.at_level(logging.INFO):
        increment = run(config, ray_executor, stop_after="graph")
    assert f"from graph {graph.fingerprint}: 1 of 3 parts are new" in caplog.text
    shutil.copytree(f"{tmp_path}/work/embed", f"{tmp_path}/check/embed")
    named = f"{tmp_path}/work/graph/{increment.manifests['graph'].fingerprint}"
    check = grow(1, 2, 3, work_dir=f"{tmp_path}/check", graph__quantiser=named)
    full = build(check)
    assert full.manifests["graph"] == increment.manifests["graph"]
    assert read_graph_files(check, full) == read_graph_files(config, increment)


def test_what_auto_takes(grow, tmp_path):
    trained = build(grow(0, 1)).manifests["graph"].facts["quantiser"]
    # Another pool, other parameters, and `new` train their own.
    assert find_inputs(grow(0, 2))["quantiser"] == trained
    assert "quantiser" not in find_inputs(grow(2))
    assert "quantiser" not in find_inputs(grow(0, 1, 2, graph__n_neighbors=2))
    assert "quantiser" not in find_inputs(grow(0, 1, 2, graph__quantiser="new"))
    assert find_inputs(grow(0, 1, 2))["quantiser"] == trained
    assert find_inputs(grow(2, graph__quantiser=trained))["quantiser"] == trained
    shutil.rmtree(tmp_path / "work" / "graph" / "units" / latest.trained_key(trained))
    assert "quantiser" not in find_inputs(grow(0, 1, 2))


def test_a_damaged_record_is_ignored(grow, tmp_path, caplog):
    build(grow(0, 1))
    (record,) = (tmp_path / "work" / "graph").glob("latest-*.json")
    record.write_bytes(record.read_bytes().replace(b"shards", b"shardz"))
    assert "quantiser" not in find_inputs(grow(0, 1, 2))
    assert "damaged, ignored" in caplog.text


@pytest.mark.parametrize(
    ("named", "fault"),
    [
        ("latest", "found latest; expected auto, new, the id of a run"),
        ("0" * 16, "found no run 0{16} in .*/work; expected one that `d2prune runs` lists"),
        ("0" * 32, "found no graph .*/work/graph/0{32}; expected a complete one"),
        ("/nowhere/graph/" + "0" * 32, "found no graph /nowhere/graph/0{32}; expected a complete one"),
    ],
)
def test_a_graph_that_does_not_exist_is_one_line(grow, named, fault):
    with pytest.raises(UserError, match=rf"^graph\.quantiser: {fault}"):
        plan_run(grow(0, graph__quantiser=named))


def test_a_graph_that_is_searched_exactly_has_no_quantiser(grow):
    exact = build(grow(0, graph={"n_neighbors": 3})).manifests["graph"]
    with pytest.raises(UserError, match="has no quantiser, since it was searched exactly"):
        plan_run(grow(0, graph={"n_neighbors": 3, "quantiser": exact.fingerprint}))


def test_a_named_quantiser_has_the_lists_that_are_asked_for(grow):
    trained = build(grow(0, 1)).manifests["graph"].facts["quantiser"]
    assert find_inputs(grow(0, graph__quantiser=trained, graph__nlist=None))["quantiser"] == trained
    for option, asked, found in (
        ("features", "image", r"image\+text"),
        ("nlist", 5, 4),
        ("nprobe", 1, 2),
        ("seed", 1, 0),
    ):
        config = grow(0, graph__quantiser=trained, **{f"graph__{option}": asked})
        fault = rf"^graph\.{option}: found {asked}; expected {found}, as quantiser {trained} has$"
        with pytest.raises(UserError, match=fault):
            plan_run(config)


def test_a_damaged_manifest_changes_no_identity(grow, tmp_path):
    first = build(grow(0, 1)).manifests["graph"]
    second = build(grow(0, 1, 2)).manifests["graph"]
    folder = tmp_path / "work" / "graph"
    (folder / second.fingerprint / "manifest.json").write_bytes(b"")
    assert build(grow(0, 1, 2)).manifests["graph"] == second
    build(grow(0, 1))
    (folder / first.fingerprint / "manifest.json").write_bytes(b"")
    assert build(grow(0, 1)).manifests["graph"] == first


def damage_quantiser(folder, fingerprint, fault):
    unit = folder / "units" / latest.trained_key(fingerprint)
    if fault == "lost":
        shutil.rmtree(unit)
    elif fault == "short":
        (unit / "centroids.npy").write_bytes(b"")
    else:
        data = bytearray((unit / "centroids.npy").read_bytes())
        data[-1] ^= 1
        (unit / "centroids.npy").write_bytes(data)


@pytest.mark.parametrize("fault", ["lost", "short"])
def test_a_quantiser_is_rebuilt_with_the_graph_that_trained_it(grow, tmp_path, fault):
    first = build(grow(0, 1))
    folder, trained = tmp_path / "work" / "graph", first.manifests["graph"].facts["quantiser"]
    damage_quantiser(folder, trained, fault)
    again = build(grow(0, 1))
    assert again.manifests["graph"] == first.manifests["graph"]
    assert find_inputs(grow(0, 1, 2))["quantiser"] == trained
    assert read_trained(str(folder), trained).nprobe == 2


@pytest.mark.parametrize("fault", ["lost", "short", "other bytes"])
def test_a_graph_that_was_given_a_lost_quantiser_trains_another(grow, tmp_path, caplog, fault):
    trained = build(grow(0, 1)).manifests["graph"].facts["quantiser"]
    graph = build(grow(0, 1, 2)).manifests["graph"]
    folder = tmp_path / "work" / "graph"
    damage_quantiser(folder, trained, fault)
    caplog.clear()
    assert "quantiser" not in build(grow(0, 2)).manifests["graph"].inputs
    lines = [line for line in caplog.messages if "another is trained" in line]
    assert lines == [f"graph: quantiser {trained} is damaged or lost; another is trained"]
    # A configuration that names it leaves no choice.
    shutil.rmtree(folder / "units" / latest.trained_key(trained), ignore_errors=True)
    lost = f"^graph.quantiser: found no quantiser {trained} in .*, which .* --set graph.quantiser=auto$"
    with pytest.raises(UserError, match=lost):
        build(grow(0, 2, graph__quantiser=graph.fingerprint))


@pytest.mark.parametrize("fault", ["short", "other bytes"])
def test_a_named_quantiser_that_is_damaged_is_one_line(grow, tmp_path, fault):
    graph = build(grow(0, 1)).manifests["graph"]
    damage_quantiser(tmp_path / "work" / "graph", graph.facts["quantiser"], fault)
    with pytest.raises(UserError, match=r"^graph.quantiser: found no quantiser .* graph.quantiser=auto$"):
        build(grow(0, 2, graph__quantiser=graph.fingerprint))


def test_pruning_keeps_what_the_next_night_needs(grow, tmp_path, caplog):
    result = run(grow(0, 1), InProcess())
    first, run_id = result.manifests["graph"], Path(result.output).name
    assert find_inputs(grow(2, graph__quantiser=run_id))["quantiser"] == first.facts["quantiser"]
    second = run(grow(0, 1, 2), InProcess()).manifests["graph"]
    pruning.prune(f"{tmp_path}/work", 1)
    folder = tmp_path / "work" / "graph"
    assert not (folder / first.fingerprint).exists() or not list((folder / first.fingerprint).iterdir())
    assert len(list(folder.glob("units/state-*/receipt.json"))) == 3
    caplog.clear()
    with caplog.at_level(logging.INFO):
        third = build(grow(0, 2)).manifests["graph"]
    assert f"from graph {second.fingerprint}: 0 of 2 parts are new" in caplog.text
    assert third.inputs["quantiser"] == first.facts["quantiser"]


def test_damage_of_a_graph_leaves_the_quantiser_that_it_was_given(grow, tmp_path):
    build(grow(0, 1))
    config = grow(0, 1, 2)
    second = build(config)
    before = read_graph_files(config, second)
    unit = second.manifests["graph"].units[0]
    (tmp_path / "work" / "graph" / "units" / unit.key / "neighbors.parquet").write_bytes(b"")
    assert read_graph_files(config, build(config)) == before
