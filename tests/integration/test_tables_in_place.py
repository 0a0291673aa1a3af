"""Runs whose embeddings stay in the input: as from copies, also when the input moves or changes."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from d2prune.cli.main import main
from d2prune.config.model import RunConfig
from d2prune.execution import InProcess
from d2prune.explore.clusters import read_clusters
from d2prune.explore.comparison import read_coverage_sample
from d2prune.index.job import IndexJob
from d2prune.parts.files import EMBEDDINGS
from d2prune.parts.in_place import find_in_place
from d2prune.runs.driver import run
from d2prune.runs.finished import open_run
from tests.parts.test_in_place import overwrite
from tests.pools import tree
from tests.tables import make_rows, write_datacomp


def configure(folder: Path, pool: Path, **changes) -> dict:
    values = {
        "input": str(pool),
        "work_dir": str(folder / "work"),
        "output": str(folder / "output"),
        "graph": {"n_neighbors": 4},
        "select": {"fraction": 0.3},
    }
    return values | changes


def finish(values: dict, **options):
    return run(RunConfig.parse(values, "test"), InProcess(), **options)


@pytest.fixture
def rows():
    """Two files of rows, the first with rows that are rejected."""
    first, second = make_rows(60, 1), make_rows(40, 2)
    first.image[[0, 7]] = 0
    first.text[8, 2] = np.nan
    first.score[20] = np.nan
    return [first, second]


def subset_of(values: dict) -> bytes:
    return Path(values["output"], "subset.npy").read_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"score": {"difficulty": "s_clip_loss", "reference_size": 40, "references": 2}},
        {"select": {"fraction": 0.3, "method": "k_center"}, "graph": {"n_neighbors": 0}},
    ],
)
def test_every_reader_finds_what_copies_hold(tmp_path, rows, changes):
    found = {}
    for name, compressed in (("in-place", False), ("copied", True)):
        pool = write_datacomp(tmp_path / name / "meta", rows, compressed)
        values = configure(tmp_path / name, pool, **changes)
        finish(values)
        opened = open_run(values["work_dir"])
        places = [find_in_place(unit) for unit in opened.embed.units]
        assert all((place is None) == compressed for place in places) and len(opened) == 96
        job = IndexJob(opened, 1, (), n_dims=32)
        clusters = read_clusters(opened)
        report = (Path(values["work_dir"]) / "report").rglob("report.html")
        found[name] = (
            subset_of(values),
            [job.codes(part).tobytes() for part in range(2)],
            [job.rows(part).tobytes() for part in range(2)],
            (clusters.names, clusters.label_N.tobytes()),
            read_coverage_sample(opened).distances_QS.tobytes(),
            len([*report]),
        )
        assert opened.parts.vector_bytes(1, EMBEDDINGS) >= 40 * 16 * 2 * 2
    assert found["in-place"] == found["copied"]


def test_a_moved_input_is_found_where_the_next_run_finds_it(tmp_path, rows):
    values = configure(tmp_path, write_datacomp(tmp_path / "meta", rows))
    expected = configure(tmp_path / "expected", tmp_path / "meta")
    finish(expected)
    finish(values, stop_after="embed")
    receipts = {name: data for name, data in tree(tmp_path / "work").items() if "receipt" in name}
    (tmp_path / "meta").rename(tmp_path / "elsewhere")
    result = finish(values | {"input": str(tmp_path / "elsewhere")})
    assert "embed" not in result.seconds
    assert subset_of(values) == subset_of(expected)
    assert {name: tree(tmp_path / "work")[name] for name in receipts} == receipts
    assert len(open_run(values["work_dir"]).parts.take_vectors(np.arange(3))[0]) == 3


def test_what_changes_under_a_run_ends_it_with_one_line(tmp_path, rows, capsys):
    values = configure(tmp_path, write_datacomp(tmp_path / "meta", rows))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    command = ["run", "--config", str(tmp_path / "run.yaml"), "--no-ray"]
    assert main([*command, "--stop-after", "embed"]) == 0
    overwrite(tmp_path / "meta" / "00000001.npz", keep_time=True)
    before = tree(tmp_path / "work" / "embed")
    capsys.readouterr()
    assert main(command) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("d2prune: ")]
    assert f"{tmp_path}/meta/00000001.npz: changed since" in line and "found checksum" in line
    after = {name: data for name, data in tree(tmp_path / "work" / "embed").items()}
    assert after == before
    # With another time it is another input, and is imported anew.
    overwrite(tmp_path / "meta" / "00000001.npz", keep_time=False)
    assert main(command) == 0


def test_pruning_leaves_the_input_alone(tmp_path, rows):
    pool = write_datacomp(tmp_path / "meta", rows)
    before = tree(pool)
    for text in (True, False):
        changes = {} if text else {"columns": {"text_emb": None}, "graph": {"features": "image"}}
        finish(configure(tmp_path, pool, output=f"{tmp_path}/out/{{run_id}}", **changes))
    assert main(["runs", f"{tmp_path}/work", "--prune", "--keep", "1", "--yes"]) == 0
    assert tree(pool) == before and len([*(tmp_path / "work" / "embed").glob("*/manifest.json")]) == 1
    assert len(open_run(f"{tmp_path}/work").parts.take_vectors(np.arange(5))[0]) == 5


def test_copies_are_announced(tmp_path, rows, caplog):
    caplog.set_level("INFO", "d2prune")
    finish(configure(tmp_path, write_datacomp(tmp_path / "a", rows)), stop_after="embed")
    assert "copied" not in caplog.text
    pool = write_datacomp(tmp_path / "b", rows, compressed=True)
    finish(configure(tmp_path, pool), stop_after="embed")
    assert (
        caplog.text.count("the embeddings of 2 of 2 tables are copied to work_dir, since") == 1
        and f"{pool}/00000000.npz: l14_img is compressed; float16 and float32" in caplog.text
    )
