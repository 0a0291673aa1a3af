"""What `d2prune plan` says of an increment, against what the next run does."""

import logging
import shutil
from types import SimpleNamespace

import pytest

from d2prune.cli.main import main
from d2prune.estimate.night import Night
from d2prune.execution import InProcess
from d2prune.graph import stage
from d2prune.graph.params import Layout
from d2prune.runs import forecast
from d2prune.runs.driver import run
from d2prune.runs.forecast import forecast_night
from tests.table_nights import Nights
from tests.tables import make_rows

LISTS = {"nlist": 4, "nprobe": 2, "n_neighbors": 3}
SHARDS = {name: make_rows(40, seed) for seed, name in enumerate("abcde")}
OTHERS = {name: make_rows(40, seed) for seed, name in enumerate("uvwxyz", 10)}


@pytest.fixture(autouse=True)
def _in_steps(monkeypatch):
    """Small pools are built in steps, too, which is what increments need."""
    monkeypatch.setattr(stage, "Layout", lambda **given: Layout(whole_below=0, partitions=2, **given))
    monkeypatch.setattr(forecast, "Layout", SimpleNamespace(whole_below=0))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A work_dir with the graph of one night."""
    nights = Nights(tmp_path_factory.mktemp("nights"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "Layout", lambda **given: Layout(whole_below=0, partitions=2, **given))
        run(nights.configure(SHARDS, graph=LISTS), InProcess(), stop_after="graph")
    return nights


def pick(shards, *names):
    return {name: shards[name] for name in names}


# Pool -> shards and rows that are new, those that are gone, and why the graph is built in full.
INCREMENTS = {
    "added": (SHARDS | pick(OTHERS, "u"), (1, 40), (0, 0), ""),
    "removed": (pick(SHARDS, *"acde"), (0, 0), (1, 40), ""),
    "both": (pick(SHARDS, *"acde") | pick(OTHERS, *"uv"), (2, 80), (1, 40), ""),
    "many": (SHARDS | pick(OTHERS, *"uvwx"), (4, 160), (0, 0), ""),
    "grown": (SHARDS | OTHERS, (6, 240), (0, 0), "rows; expected 100 to 400"),
    "shrunk": (pick(SHARDS, *"abc") | {"d": make_rows(1)}, (1, 1), (2, 80), ""),
    "mostly new": (
        pick(SHARDS, *"abc") | pick(OTHERS, *"uvwx"),
        (4, 160),
        (2, 80),
        "160 of 280 rows are new",
    ),
    "another pool": (
        pick(SHARDS, *"ab") | OTHERS,
        (6, 240),
        (3, 120),
        "less than half of the last run's shards",
    ),
}


@pytest.mark.parametrize("case", INCREMENTS)
def test_what_is_new_and_how_the_graph_is_built(first, case):
    shards, new, gone, why = INCREMENTS[case]
    night = forecast_night(first.configure(shards, graph=LISTS), 1_000)
    assert isinstance(night, Night)
    assert (night.new_shards, night.removed_shards, night.removed_rows) == (new[0], *gone)
    assert night.unembedded_shards == night.new_shards
    # Rows are estimated from bytes; a table of one row is mostly its footer.
    assert night.new_rows == night.unembedded_rows
    assert abs(night.new_rows - new[1]) <= (30 if new[1] == 1 else new[1] // 20)
    assert night.why_full.startswith(why.split("rows")[0].split("of")[0][:5]) and bool(
        night.why_full
    ) == bool(why)


SETTINGS = {
    "new lists": ({"quantiser": "new"}, "graph.quantiser is new"),
    "other parameters": ({"n_neighbors": 4}, "built in full: no graph with these parameters"),
    "no lists": ({"nprobe": None, "nlist": None}, "built in full: no graph with these parameters"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_other_settings_are_built_in_full(first, case):
    changes, why = SETTINGS[case]
    night = forecast_night(first.configure(SHARDS | pick(OTHERS, "u"), graph=LISTS | changes), 1_000)
    assert (night if isinstance(night, str) else night.why_full).startswith(why)


def test_a_complete_graph_and_a_fresh_work_dir(first, tmp_path):
    config = first.configure(SHARDS, graph=LISTS)
    assert forecast_night(config, 200) == "complete for this pool; it is not built again"
    assert forecast_night(config.model_copy(update={"work_dir": str(tmp_path)}), 200) is None


def test_a_small_pool_and_a_cut_off_are_built_in_full(first, tmp_path, monkeypatch):
    monkeypatch.setattr(forecast, "Layout", Layout)
    shards = SHARDS | pick(OTHERS, "u")
    assert forecast_night(first.configure(shards, graph=LISTS), 200).why_full == "the pool is small"
    monkeypatch.setattr(forecast, "Layout", SimpleNamespace(whole_below=0))
    cut = {"graph": LISTS, "select": {"drop_score": "clip_score", "drop_fraction": 0.1}}
    nights = Nights(tmp_path)
    run(nights.configure(SHARDS, **cut), InProcess(), stop_after="graph")
    night = forecast_night(nights.configure(shards, **cut), 200)
    assert night.why_full == "select.drop_score moves the cut-off with the pool"


def test_what_is_forecast_is_what_happens(first, tmp_path, caplog):
    shutil.copytree(first.folder, tmp_path / "copy")
    nights = Nights(tmp_path / "copy")
    nights.written = dict(first.written)
    for name, line in (("both", "graph: from graph"), ("grown", "rows; expected 100 to 400")):
        config = nights.configure(INCREMENTS[name][0], graph=LISTS)
        before = forecast_night(config, 200)
        assert bool(before.why_full) == (name == "grown")
        caplog.clear()
        with caplog.at_level(logging.INFO):
            run(config, InProcess(), stop_after="graph")
        assert line in caplog.text
    # What kept no candidates is no start.
    for path in (nights.folder / "work" / "graph" / "units").glob("state-*"):
        shutil.rmtree(path)
    config = nights.configure(INCREMENTS["grown"][0] | {"t": make_rows(20, 50)}, graph=LISTS)
    assert "kept no candidates" in forecast_night(config, 200).why_full


def test_the_plan_prints_it(first, capsys):
    first.configure(INCREMENTS["both"][0], graph=LISTS)
    folder = first.folder
    command = [
        "plan",
        f"{folder}/pool",
        "--work-dir",
        f"{folder}/work",
        "--output",
        f"{folder}/out/{{run_id}}",
    ]
    command += ["--fraction", "0.3", *(f"--set=graph.{name}={value}" for name, value in LISTS.items())]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "rows are new (shards: 2, not embedded yet: 2), 40 rows are gone (shards: 1)" in printed
    assert "graph       an increment: " in printed and "% of the CPU time of a full build, reads " in printed
    # The table shows what the run does: two shards are imported.
    assert [line.split()[1] for line in printed.splitlines() if line.split()[:1] == ["embed"]] == ["2"]
    assert main([*command, "--set=graph.quantiser=new"]) == 0
    assert "graph       built in full: graph.quantiser is new" in capsys.readouterr().out
