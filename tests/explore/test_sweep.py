"""A sweep says what the runs it stands for would keep, and embeds nothing."""

import shutil

import pytest
import yaml

from d2prune.cli.main import main
from d2prune.execution import InProcess
from d2prune.explore.explain import read_line
from d2prune.runs.driver import run
from d2prune.runs.finished import open_run
from d2prune.sweep.page import render
from d2prune.sweep.sweep import Grid, sweep, table
from tests.browser import chromium, needs_axe, needs_chromium, serious_faults


@pytest.fixture(scope="module")
def config(finished_config, finished_result, tmp_path_factory):
    """A copy of the finished run: a sweep may add graphs."""
    folder = tmp_path_factory.mktemp("sweep")
    shutil.copytree(finished_config.work_dir, folder / "work")
    return finished_config.model_copy(
        update={"work_dir": str(folder / "work"), "output": str(folder / "output")}
    )


@pytest.fixture(scope="module")
def found(config):
    return sweep(config, Grid((0.1, 0.3, 0.6), (2, 4), (), (0.1, 0.5)), use_ray=False)


def test_every_setting_keeps_what_its_run_would(config, found, tmp_path):
    assert len(found.outcomes) == 12
    for outcome in (found.outcomes[0], found.outcomes[4], found.outcomes[11]):
        setting = outcome.setting
        changed = config.model_copy(
            update={
                "output": str(tmp_path / f"{setting.fraction}"),
                "graph": config.graph.model_copy(update={"n_neighbors": setting.n_neighbors}),
                "select": config.select.model_copy(
                    update={"fraction": setting.fraction, "gamma_reverse": setting.gamma_reverse}
                ),
            }
        )
        result = run(changed, InProcess(), "select")
        # The graph that the sweep built is the run's own.
        assert set(result.seconds) <= {"rank", "select"}
        own = open_run(config.work_dir, result.manifests["select"].fingerprint)
        kept_N = read_line(own).kept_N
        assert outcome.kept == kept_N.sum()
        scores = own.column("decisions.parquet", "difficulty").to_numpy()[kept_N] - own.offset
        assert outcome.mean_score == pytest.approx(scores.mean(dtype=float), abs=1e-6)


def test_the_runs_own_setting_agrees_with_itself(found):
    (own,) = [outcome for outcome in found.outcomes if outcome.setting == found.current]
    assert own.overlap == 1.0
    assert all(0 < outcome.overlap <= 1 for outcome in found.outcomes)
    by_fraction = [outcome for outcome in found.outcomes if outcome.setting.n_neighbors == 4][:3]
    assert [outcome.coverage for outcome in by_fraction] == sorted(
        (o.coverage for o in by_fraction), reverse=True
    )


def test_the_command_prints_a_table_and_writes_a_page(config, tmp_path, capsys):
    settings = config.model_dump(exclude={"ray"}, exclude_none=True)
    settings["graph"].pop("nprobe", None)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "bad.txt").write_text("a" * 32 + "\n")
    command = ["sweep", "--config", str(tmp_path / "run.yaml"), "--fractions", "0.2,1", "--no-ray"]
    assert main([*command, "--flagged", str(tmp_path / "bad.txt")]) == 0
    *lines, page = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:5] == ["k", "gamma_f", "gamma_r", "fraction", "kept"]
    assert lines[2].split()[3:5] == ["1", "127"] and lines[2].split()[-2:] == ["0.0%", "100.0%"]
    assert open(page).read().startswith("<!doctype html>")
    for wrong, line in (
        (["--fractions", "0.1;0.3"], "--fractions 0.1;0.3: expected numbers with commas between"),
        (["--fractions", "30"], "--fractions 30.0: expected 0 < fraction <= 1"),
        (["--n-neighbors", "0"], "--n-neighbors 0: expected 1 to 1024"),
        (["--gamma-reverse", "-1"], "--gamma-reverse is -1.0"),
        (["--set", f"work_dir={tmp_path}/none"], "is not embedded yet with these settings"),
        (["--flagged", str(tmp_path / "none")], "cannot be read"),
    ):
        assert main([*command, *wrong]) == 2
        assert line in capsys.readouterr().err


def test_the_page_shows_every_row(found):
    head, rows = table(found)
    page = render(found)
    assert all(f">{name or 'Note'}</th>" in page for name in head)
    assert len(rows) == 12 == page.count('<th scope="row">')
    assert "<script" not in page


@needs_chromium
@needs_axe
def test_axe_finds_no_serious_fault_in_the_page(found, tmp_path):
    (tmp_path / "sweep.html").write_text(render(found))
    with chromium() as browser:
        for width in (360, 1280):
            browser.open((tmp_path / "sweep.html").as_uri(), width)
            assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        assert serious_faults(browser) == []
