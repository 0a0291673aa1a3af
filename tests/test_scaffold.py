"""`d2prune init`: whatever a folder holds, a configuration that a run accepts, or one line."""

import re

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from d2prune import scaffold
from d2prune.cli.main import main
from d2prune.config.model import RunConfig
from d2prune.runs.plan import plan_run
from tests.pools import write_pool
from tests.tables import make_rows, write_arrays, write_clip_retrieval, write_columns, write_datacomp

ROWS = [make_rows(9, seed) for seed in (1, 2)]


def tars(folder):
    return write_pool(folder, shards=2, samples=2)


def img2dataset(folder):
    """Its tars have a table and statistics beside them."""
    tars(folder)
    pq.write_table(pa.table({"url": ["a"], "caption": ["b"]}), folder / "00000000.parquet")
    (folder / "00000000_stats.json").write_text("{}")


def nested(folder):
    tars(folder / "a" / "b")
    tars(folder / "c")


def images_with_a_number(folder):
    folder.mkdir()
    rows = ROWS[0]
    kind = pa.list_(pa.float16(), rows.image.shape[1])
    columns = {"image_emb": pa.array(list(rows.image), kind), "width": [3] * 9, "aesthetic": rows.score}
    pq.write_table(pa.table(columns), folder / "part.parquet")


def images_alone(folder):
    folder.mkdir()
    pq.write_table(pa.table({"uid": ROWS[0].uid}), folder / "part.parquet")
    np.save(folder / "part.npy", ROWS[0].image)


def without_embeddings(folder):
    folder.mkdir()
    pq.write_table(pa.table({"a": [1]}), folder / "a.parquet")


def mixed(folder):
    tars(folder)
    write_datacomp(folder, ROWS)


POOLS = [
    (tars, r"2 tars"),
    (img2dataset, r"2 tars"),
    (nested, r"4 tars"),
    (lambda folder: write_datacomp(folder, ROWS), "2 tables, DataComp's metadata"),
    (lambda folder: write_clip_retrieval(folder, ROWS), "2 tables, a clip-retrieval folder"),
    (lambda folder: write_clip_retrieval(folder, ROWS, text=False), "2 tables, a clip-retrieval folder"),
    (lambda folder: write_arrays(folder, ROWS), "2 tables, tables with arrays in .npy"),
    (lambda folder: write_columns(folder, ROWS), "2 tables, tables with columns"),
    (images_with_a_number, "1 tables, tables with columns"),
]
FAULTS = [
    (lambda folder: folder.mkdir(), r"no \.tar|found 1 \.txt; expected tars"),
    (lambda folder: None, r"no \.tar|not found|does not exist"),
    (
        lambda folder: (folder.mkdir(), (folder / "a.txt").write_text("x")),
        r"no \.tar|found 1 \.txt; expected tars",
    ),
    (lambda folder: (folder.mkdir(), (folder / "a.parquet").write_text("x")), "parquet"),
    (
        lambda folder: (folder.mkdir(), pq.write_table(pa.table({"a": [1]}), folder / "a.parquet")),
        "embeddings",
    ),
    (lambda folder: folder.write_text("x"), ""),
    (images_alone, "found no score; expected clip_score"),
    (mixed, "found tars and tables"),
]
NAMES = ["pool", "my pool", "a{0..3}b", "what?*", "größe", "it's", "- x", "yes", "x: y", "#a", "a,b", "0123"]


def init(folder, tmp_path, capsys):
    code = main(["init", str(folder), "--file", str(tmp_path / "run.yaml")])
    return code, capsys.readouterr()


@pytest.mark.parametrize("make, found", POOLS)
def test_every_kind_of_pool_gets_a_configuration_that_plans(tmp_path, capsys, make, found):
    make(tmp_path / "pool")
    code, shown = init(tmp_path / "pool", tmp_path, capsys)
    assert code == 0, shown.err
    assert re.search(f"Found {found}", shown.out)
    config = RunConfig.load(tmp_path / "run.yaml")
    plan = plan_run(config)
    assert len(plan.pool.shards) == int(re.search(r"Found (\d+)", shown.out)[1])
    assert config.work_dir.startswith(str(tmp_path)) and config.output.startswith(str(tmp_path))
    text = (tmp_path / "run.yaml").read_text()
    assert all(line in shown.out for line in text.splitlines())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pool", "run.yaml"]


@pytest.mark.parametrize("make, message", FAULTS)
def test_what_is_no_pool_is_one_line(tmp_path, capsys, make, message):
    make(tmp_path / "pool")
    code, shown = init(tmp_path / "pool", tmp_path, capsys)
    (line,) = shown.err.splitlines()
    assert code == 2 and re.search(message, line), line
    assert not (tmp_path / "run.yaml").exists()


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_of_folders(tmp_path, capsys, name):
    write_columns(tmp_path / name, ROWS[:1])
    code, shown = init(tmp_path / name, tmp_path, capsys)
    assert code == 0, shown.err
    config = RunConfig.load(tmp_path / "run.yaml")
    assert config.input == str(tmp_path / name) and len(plan_run(config).pool.shards) == 1
    assert config.work_dir != config.output != config.input


def test_the_current_folder_and_an_existing_file(tmp_path, capsys, monkeypatch):
    write_columns(tmp_path / "pool", ROWS[:1])
    monkeypatch.chdir(tmp_path / "pool")
    assert main(["init"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Next:  d2prune run --config run.yaml"
    written = (tmp_path / "pool" / "run.yaml").read_bytes()
    assert main(["init"]) == 2
    assert "run.yaml: exists already" in capsys.readouterr().err
    assert (tmp_path / "pool" / "run.yaml").read_bytes() == written
    assert RunConfig.load("run.yaml").output == f"{tmp_path}/pool-filtered"


def test_pool_at_a_url(tmp_path, capsys):
    store = fsspec.filesystem("memory")
    for tar in tars(tmp_path / "pool").glob("*.tar"):
        store.pipe(f"/bucket/pool/{tar.name}", tar.read_bytes())
    code, shown = init("memory://bucket/pool/", tmp_path, capsys)
    assert code == 0, shown.err
    config = RunConfig.load(tmp_path / "run.yaml")
    assert (config.input, config.output) == ("memory://bucket/pool", "memory://bucket/pool-filtered")
    code, shown = init(f"file://{tmp_path}/pool", tmp_path / "pool", capsys)
    assert code == 0 and RunConfig.load(tmp_path / "pool" / "run.yaml").work_dir == f"{tmp_path}/pool-work"


@pytest.mark.parametrize(
    "place, stem",
    [
        ("s3://bucket/a/pool", "s3://bucket/a/pool"),
        ("s3://bucket", "{cwd}/bucket"),
        ("/data", "{cwd}/data"),
        ("/", "{cwd}/pool"),
        ("s3://bucket/{0..3}.tar", "s3://bucket/_0..3_"),
    ],
)
def test_artifacts_lie_beside_the_pool(monkeypatch, tmp_path, place, stem):
    """Or in the current folder, if the pool is a whole bucket or below the root."""
    monkeypatch.chdir(tmp_path)
    assert scaffold._find_stem(place) == stem.format(cwd=tmp_path)
