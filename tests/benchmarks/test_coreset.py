"""The coreset benchmark on synthetic data: resuming, settings, methods, table and plot."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.coreset import __main__ as coreset
from benchmarks.coreset import methods as coreset_methods
from benchmarks.coreset.report import RESULTS, markdown, summarise, svg

METHODS = ["random", "d2:aum", "ccs:aum", "k_center"]
ARGUMENTS = [
    "--dataset",
    "tiny",
    "--rates",
    "0.5",
    "0.9",
    "--seeds",
    "2",
    "--steps",
    "20",
    "--methods",
    *METHODS,
]


def read_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_interrupted_run_resumes_and_other_settings_are_refused(tmp_path, capsys):
    out = tmp_path / "out"
    assert coreset.main([*ARGUMENTS, "--out", str(out)]) == 0
    table = pq.read_table(out / "results.parquet")
    assert table.schema == RESULTS and len(table) == 2 + 2 * 2 * len(METHODS)
    kept = dict(zip(table["pruned"].to_pylist(), table["kept"].to_pylist(), strict=True))
    assert kept == {0.0: 240, 0.5: 120, 0.9: 24}
    assert (
        "| random |" in (out / "results.md").read_text() and "k_center" in (out / "results.svg").read_text()
    )

    before = read_files(out / "cells")
    lost = sorted(before)[3]
    (out / "cells" / lost).unlink()
    (out / "cells" / sorted(before)[5]).write_text(before[sorted(before)[5]].decode().replace(" ", "  "))
    marked = read_files(out / "cells")
    capsys.readouterr()
    assert coreset.main([*ARGUMENTS, "--out", str(out)]) == 0
    again = read_files(out / "cells")
    # Only the missing cell was computed again, with the same accuracy.
    assert {name for name in again if again[name] != marked.get(name)} == {lost}
    assert json.loads(again[lost])["accuracy"] == json.loads(before[lost])["accuracy"]

    assert coreset.main([*ARGUMENTS, "--steps", "21", "--out", str(out)]) == 2
    assert "other settings" in capsys.readouterr().err


def test_time_limit_stops_between_cells(tmp_path, capsys):
    out = tmp_path / "out"
    assert coreset.main([*ARGUMENTS, "--out", str(out), "--seconds", "0"]) == 0
    assert "some cells are missing" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["d3:aum", "d2", "d2:luck", "random:aum"])
def test_unknown_method_is_refused(tmp_path, capsys, method):
    arguments = ["--dataset", "tiny", "--out", str(tmp_path / "out"), "--methods", method]
    assert coreset.main(arguments) == 2
    assert f"--methods {method}: expected random" in capsys.readouterr().err


def test_missing_data_is_a_usage_error(tmp_path, capsys):
    assert coreset.main(["--dataset", "cifar10", "--data", "a.parquet", "--out", str(tmp_path / "out")]) == 2
    assert "expected TRAIN.parquet,TEST.parquet" in capsys.readouterr().err


def test_every_method_keeps_the_requested_number_of_samples():
    from benchmarks.coreset.cells import Settings
    from benchmarks.coreset.data import tiny
    from benchmarks.coreset.training import Trainer
    from d2prune.scores import TrainingLog

    data = tiny(None, None, 16, None)
    recipe = coreset.RECIPES["tiny"]
    assert Settings("tiny", None, None, 16, recipe).recipe.steps == 60
    log = TrainingLog(len(data.train_labels), data.n_classes)
    Trainer(data, recipe).fit(np.arange(240), 0, log)
    evidence = coreset_methods.Evidence(log, data.embeddings, data.train_labels)
    for method in (
        *coreset_methods.PAPER,
        *coreset_methods.REST,
        *(f"top:{name}" for name in coreset_methods.SCORES),
    ):
        for pruned in (0.3, 0.7, 0.9, 0.99):
            kept = coreset_methods.choose(evidence, method, pruned, 1)
            assert len(set(kept.tolist())) == round(240 * (1 - pruned)), (method, pruned)


def test_table_and_plot_of_given_results():
    import pyarrow as pa

    rows = [
        {
            "method": method,
            "pruned": pruned,
            "seed": seed,
            "kept": 1,
            "accuracy": accuracy + seed / 100,
            "seconds": 1.0,
        }
        for method, pruned, accuracy in (
            ("all samples", 0.0, 0.9),
            ("a", 0.5, 0.8),
            ("b", 0.5, 0.7),
            ("b", 0.9, 0.5),
        )
        for seed in (0, 1)
    ]
    points = summarise(pa.Table.from_pylist(rows, schema=RESULTS), ["all samples", "a", "b"])
    assert markdown(points).splitlines()[2:] == [
        "| all samples: 90.5 ± 0.7 | | | 2 |",
        "| a | **80.5 ± 0.7** |  | 2 |",
        "| b | 70.5 ± 0.7 | **50.5 ± 0.7** | 2 |",
    ]
    assert svg(points).count("<path") > 6
