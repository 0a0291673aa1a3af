"""A sweep predicts what runs with other settings would keep, without embedding again."""

import dataclasses
import shutil
from urllib.parse import parse_qsl

import numpy as np
import pytest
import yaml

from d2prune.cli.main import main
from d2prune.execution import InProcess
from d2prune.explore.api import Explorer
from d2prune.explore.explain import read_ranking
from d2prune.parts.files import DECISIONS
from d2prune.parts.neighbors import read_graph
from d2prune.runs.driver import run
from d2prune.runs.finished import open_run
from d2prune.sweep import measure
from d2prune.sweep.evaluate import SweepGrid, run_sweep
from d2prune.sweep.links import PORT, comparison_links
from d2prune.sweep.measure import Outcome, Setting, recommend
from d2prune.sweep.page import _join_series, outcome_table, render
from tests.browser import chromium, needs_chromium, serious_violations


@pytest.fixture(scope="module")
def config(finished_config, finished_result, tmp_path_factory):
    """A copy of the finished run, since a sweep may add graphs."""
    folder = tmp_path_factory.mktemp("sweep")
    shutil.copytree(finished_config.work_dir, folder / "work")
    return finished_config.model_copy(
        update={"work_dir": str(folder / "work"), "output": str(folder / "output")}
    )


@pytest.fixture(scope="module")
def result(config):
    return run_sweep(config, SweepGrid((0.1, 0.3, 0.6), (2, 4), (), (0.1, 0.5), ("d2",)), use_ray=False)


def test_every_setting_keeps_what_a_run_with_it_keeps(config, result, tmp_path):
    assert len(result.outcomes) == 12
    for outcome in (result.outcomes[0], result.outcomes[4], result.outcomes[11]):
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
        made = run(changed, InProcess(), "select")
        # The run reuses the graph that the sweep built.
        assert set(made.seconds) <= {"rank", "select"}
        own = open_run(config.work_dir, made.manifests["select"].fingerprint)
        kept_N = read_ranking(own).kept_N
        assert outcome.kept == kept_N.sum()
        scores = own.parts.column(DECISIONS, "difficulty").to_numpy()[kept_N] - own.offset
        assert outcome.mean_score == pytest.approx(scores.mean(dtype=float), abs=1e-6)


def test_the_runs_own_setting_overlaps_fully_with_the_run(result):
    (own,) = [outcome for outcome in result.outcomes if outcome.setting == result.current]
    assert own.overlap == 1.0
    assert all(0 < outcome.overlap <= 1 for outcome in result.outcomes)
    by_fraction = [outcome for outcome in result.outcomes if outcome.setting.n_neighbors == 4][:3]
    assert [outcome.coverage for outcome in by_fraction] == sorted(
        (o.coverage for o in by_fraction), reverse=True
    )


def test_measures_equal_their_definitions(config):
    found = run_sweep(config, SweepGrid((0.3,), methods=("score", "random")), use_ray=False).outcomes
    score, chance = found
    run_ = open_run(config.work_dir)
    scores = run_.parts.column(DECISIONS, "difficulty").to_numpy()
    size = int(0.3 * len(scores))
    assert score.kept == chance.kept == size and score.setting.method == "score"
    assert score.mean_score > chance.mean_score and score.low_scores == 0.0
    graph, _ = read_graph(f"{config.work_dir}/graph", run_.graph.units)
    order = np.argsort(-scores, kind="stable")[:size]
    rows = np.repeat(np.arange(len(scores)), np.diff(graph.indptr))
    near = (graph.sq_distances <= 0.1) & np.isin(rows, order) & np.isin(graph.indices, order)
    assert score.duplicate_pairs == near.sum() // 2
    assert score.duplicates == len(set(rows[near])) / size
    assert size - score.duplicate_pairs <= score.contents <= size


def test_semdedup_takes_near_duplicates_last(config):
    (found,) = run_sweep(config, SweepGrid((0.3,), methods=("semdedup",)), use_ray=False).outcomes
    run_ = open_run(config.work_dir)
    scores = run_.parts.column(DECISIONS, "difficulty").to_numpy()
    graph, _ = read_graph(f"{config.work_dir}/graph", run_.graph.units)
    kept, size = [], int(0.3 * len(scores))
    for node in np.argsort(-scores, kind="stable"):
        row = slice(graph.indptr[node], graph.indptr[node + 1])
        if not set(graph.indices[row][graph.sq_distances[row] <= 0.1]) & set(kept):
            kept.append(node)
    assert found.duplicate_pairs == 0 and len(kept) >= size == found.kept
    expected = scores[kept[:size]].mean(dtype=float) - run_.offset
    assert found.mean_score == pytest.approx(expected, abs=1e-6)


def test_lines_join_the_path_of_gamma_at_one_fraction(result):
    series = dict(_join_series(result.outcomes))
    assert len(series) == 6 and all(len(members) == 2 for members in series.values())
    for label, members in series.items():
        (fraction,) = {o.setting.fraction for _, o in members}
        assert label.endswith(f"fraction {fraction:g}")
        assert [o.gammas[1] for _, o in members] == [0.1, 0.5]
    one_gamma = [o for o in result.outcomes if o.setting.gamma_reverse == 0.1]
    for members in dict(_join_series(one_gamma)).values():
        assert [o.setting.fraction for _, o in members] == [0.1, 0.3, 0.6]
    assert render(result).count('class="here"') == 1 + 2 * len(result.recommended)


def test_contents_are_connected_components():
    edges = np.array([(0, 1), (1, 2), (5, 4), (4, 8), (8, 7)])
    both = np.concatenate([edges, edges[:, ::-1]])
    labels = measure._label_contents(10, both[:, 0], both[:, 1])
    assert labels.tolist() == [0, 0, 0, 3, 4, 4, 6, 4, 4, 9]


def outcome(fraction, low_scores, coverage):
    setting = Setting("d2", 5, "4/median", coverage, fraction)
    return Outcome(setting, (1.0, 1.0), 10, 0.5, low_scores, 0.0, 0, 10, coverage, None, None, 0.0)


def test_recommendation_covers_best_among_those_with_few_low_scores():
    given = [outcome(0.3, 0.001, 0.5), outcome(0.3, 0.01, 0.4), outcome(0.3, 0.02, 0.1)]
    given += [outcome(0.5, 0.3, 0.1), outcome(0.5, 0.2, 0.9)]
    assert recommend(given) == {given[1].setting, given[4].setting}


def test_the_command_prints_a_table_and_writes_a_page(config, tmp_path, capsys):
    settings = config.model_dump(exclude={"ray"}, exclude_none=True)
    settings["graph"].pop("nprobe", None)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "bad.txt").write_text("a" * 32 + "\n")
    command = ["sweep", "--config", str(tmp_path / "run.yaml"), "--fractions", "0.2,1", "--no-ray"]
    assert main([*command, "--flagged", str(tmp_path / "bad.txt")]) == 0
    *lines, first, second, page = capsys.readouterr().out.splitlines()
    assert first.startswith("Recommended at fraction 0.2: row ") and " low scores" in first
    assert second.startswith("Recommended at fraction 1: row ")
    assert lines[0].split()[:5] == ["method", "k", "gamma_f", "gamma_r", "fraction"]
    assert [line.split()[0] for line in lines[1:]] == [
        name for name in ("score", "semdedup", "random", "d2") for _ in range(2)
    ]
    assert "(8/median)" in lines[8] and lines[8].split()[5] == "1" and "127" in lines[8].split()
    assert "  0.0%            100.0%" in lines[8] and sum(" recommended " in line for line in lines) == 2
    assert open(page).read().startswith("<!doctype html>")
    for wrong, message in (
        (["--fractions", "0.1;0.3"], "--fractions: found 0.1;0.3; expected a number above 0 and up to 1"),
        (["--fractions", "30"], "--fractions: found 30; expected a number above 0"),
        (
            ["--methods", "d2,best"],
            "--methods d2,best: expected some of d2, score, s_clip_loss, semdedup, random",
        ),
        (["--n-neighbors", "0"], "--n-neighbors: found 0; expected a whole number from 1 to 1,024"),
        (["--gamma-reverse", "-1"], "--gamma-reverse: found -1; expected a finite number >= 0, `auto`, or"),
        (["--set", f"work_dir={tmp_path}/none"], "found no embeddings for these settings"),
        (["--flagged", str(tmp_path / "none")], "cannot be read"),
    ):
        assert main([*command, *wrong]) == 2
        assert message in capsys.readouterr().err


def test_s_clip_loss_is_compared_once_a_run_has_computed_it(config, tmp_path):
    grid = SweepGrid((0.3,), methods=("s_clip_loss",))
    assert run_sweep(config, grid, use_ray=False).outcomes == ()
    score = config.score.model_copy(update={"difficulty": "s_clip_loss"})
    other = config.model_copy(update={"score": score, "output": str(tmp_path / "other")})
    made = run(other, InProcess(), "select")
    (found,) = run_sweep(config, grid, use_ray=False).outcomes
    assert found.setting.method == "s_clip_loss"
    # By the other run's own difficulty, the same selection is that of `score`.
    (same,) = run_sweep(other, SweepGrid((0.3,), methods=("score",)), use_ray=False).outcomes
    assert (found.kept, found.duplicate_pairs) == (same.kept, same.duplicate_pairs) and made.manifests


def test_the_page_shows_every_row(result):
    head, rows = outcome_table(result)
    page = render(result)
    assert all(f">{name}</th>" in page for name in head)
    assert len(rows) == 12 == page.count('<th scope="row">')
    assert "<script" not in page


def test_rows_link_to_the_comparison_of_what_a_run_has_ranked(config, result):
    own = open_run(config.work_dir, result.selection)
    links = comparison_links(result)
    settings = [outcome.setting for outcome in result.outcomes]
    # Of the run's k and gammas all fractions but its own; nothing else was run when the sweep was made.
    for setting, link in zip(settings, links, strict=True):
        ranked = (setting.n_neighbors, setting.gamma_reverse) == (4, 0.5)
        assert bool(link) >= (ranked and setting.fraction != 0.3)
        if ranked and setting.fraction == 0.3:
            assert link == ""
    page = render(result)
    assert page.count(">compare</a>") == sum(map(bool, links)) >= 2
    assert f"--port {PORT}" in page
    link = next(link for link in links if link.endswith("%400.6"))
    found = Explorer(own).compare(dict(parse_qsl(link.split("?", 1)[1])))
    assert found["a"]["kept"] == 38 and found["b"]["kept"] == 76
    assert not any(comparison_links(dataclasses.replace(result, selection="")))


@needs_chromium
def test_axe_finds_no_serious_violation_in_the_page(result, tmp_path):
    (tmp_path / "sweep.html").write_text(render(result))
    with chromium() as browser:
        for width in (360, 1280):
            browser.open((tmp_path / "sweep.html").as_uri(), width)
            assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        assert serious_violations(browser) == []
