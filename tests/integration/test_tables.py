"""Runs from tables of embeddings: no model and no images, and the same coreset as from tars."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from d2prune import store
from d2prune.cli.main import main
from d2prune.config.model import RunConfig
from d2prune.demo import s3_server
from d2prune.execution import InProcess
from d2prune.output import subset
from d2prune.reshard.reshard import ReshardParams, reshard
from d2prune.runs.driver import run
from d2prune.store import artifacts
from d2prune.store.columns import vectors
from d2prune.verify.folder import verify
from tests.pools import tree
from tests.tables import (
    Rows,
    make_rows,
    write_arrays,
    write_clip_retrieval,
    write_columns,
    write_datacomp,
)

LAYOUTS = {
    "compressed": lambda folder, parts: write_datacomp(folder, parts, compressed=True),
    "float32": lambda folder, parts: write_datacomp(folder, [widen(rows) for rows in parts]),
    "datacomp": write_datacomp,
    "clip-retrieval": write_clip_retrieval,
    "arrays": write_arrays,
    "columns": write_columns,
}
DECIDED = (
    "uid",
    "difficulty",
    "forward_score",
    "selection_fixed",
    "kept",
    "reason",
    "suppressed_by",
    "suppressor",
)


def widen(rows: Rows) -> Rows:
    return replace(rows, image=rows.image.astype(np.float32), text=rows.text.astype(np.float32))


@pytest.fixture
def tables(tmp_path):
    """A minimal configuration over a pool of tables, with a small graph."""

    def _tables(pool, name="run", **changes) -> RunConfig:
        values = {
            "input": str(pool),
            "work_dir": str(tmp_path / name / "work"),
            "output": str(tmp_path / name / "output"),
            "graph": {"n_neighbors": 4},
            "select": {"fraction": 0.3},
            "report": {"gallery": 4},
        }
        return RunConfig.parse(values | changes, "test")

    return _tables


@pytest.fixture
def metadata(tmp_path):
    return write_datacomp(tmp_path / "meta", [make_rows(60, 1), make_rows(40, 2)])


def decisions(config, result) -> pa.Table:
    units = result.manifests["select"].units
    parts = [artifacts.read_table(f"{config.work_dir}/select", unit, "decisions.parquet") for unit in units]
    return pa.concat_tables(parts).select(DECIDED).combine_chunks()


def exported(config, result) -> list[Rows]:
    """The samples that a run embedded, as rows of a table pool."""
    rows = []
    for unit in result.manifests["embed"].units:
        samples, embeddings = (
            artifacts.read_table(f"{config.work_dir}/embed", unit, f"{name}.parquet")
            for name in ("samples", "embeddings")
        )
        rows.append(
            Rows(
                samples["uid"].to_pylist(),
                samples["caption"].to_pylist(),
                samples["clip_score"].to_numpy(),
                vectors(embeddings["image_emb"]),
                vectors(embeddings["text_emb"]),
            )
        )
    return rows


def test_tables_give_the_same_coreset_as_the_tars(configure, tables, tmp_path, monkeypatch):
    tars = configure()
    expected = run(tars, InProcess())
    parts = exported(tars, expected)
    for layout, write in LAYOUTS.items():
        config = tables(write(tmp_path / f"pool-{layout}", parts), layout)
        if layout == "datacomp":
            # More parts than files: the split into parts changes nothing.
            monkeypatch.setattr("d2prune.inputs.pool.TABLE_PART_BYTES", 2000)
        result = run(config, InProcess(), stop_after="write")
        monkeypatch.undo()
        assert decisions(config, result).equals(decisions(tars, expected)), layout
        assert Path(config.output, "subset.npy").read_bytes() == Path(tars.output, "subset.npy").read_bytes()
        assert verify(config.output, full=True) == []
    # Resharding with the subset file writes the same tars as the run over tars.
    url = f"{tables('unused', 'datacomp').output}/subset.npy"
    reshard(str(tars.input), url, str(tmp_path / "resharded"), ReshardParams(samples_per_shard=10))
    made, wrote = tree(tmp_path / "resharded"), tree(tars.output)
    assert {name: made[name] for name in made if name.endswith(".tar")} == {
        name: wrote[name] for name in wrote if name.endswith(".tar")
    }


def test_output_lists_every_kept_sample_with_its_source_columns(tables, metadata):
    config = tables(metadata)
    result = run(config, InProcess())
    names = sorted(path.name for path in Path(config.output).iterdir() if not path.name.startswith("."))
    assert names == [
        "decisions-00000000.parquet",
        "decisions-00000001.parquet",
        "kept-00000000.parquet",
        "kept-00000001.parquet",
        "manifest.json",
        "meta.json",
        "subset.npy",
    ]
    kept = pa.concat_tables(pq.read_table(path) for path in sorted(Path(config.output).glob("kept-*")))
    decided = decisions(config, result)
    assert kept["uid"].to_pylist() == decided.filter(decided["kept"])["uid"].to_pylist()
    listed = subset.decode(subset.read(f"{config.output}/subset.npy"))
    assert listed == sorted(kept["uid"].to_pylist()) and len(listed) == 30
    for table, name in (
        (metadata / "00000000.parquet", "00000000"),
        (metadata / "00000001.parquet", "00000001"),
    ):
        source = pq.read_table(table)
        mine = kept.filter(pa.compute.equal(kept["shard"], name))
        theirs = source.take(mine["row"])
        for column in ("url", "text", "sha256", "original_width", "clip_b32_similarity_score"):
            assert mine[column].equals(theirs[column])
        assert str(mine["face_bboxes"].to_pylist()) == str(theirs["face_bboxes"].to_pylist())
    meta = json.loads(Path(config.output, "meta.json").read_text())
    assert meta == {"output_count": 30, "output_shard_count": 0, "processed_count": 100}
    assert result.manifests["write"].counters == {"listed": 100, "listed_kept": 30, "written": 30}


def test_report_shows_samples_without_images(tables, metadata):
    result = run(tables(metadata), InProcess())
    page = Path(result.report).read_text()
    assert "<img" not in page and ">no image<" not in page
    assert 'href="#samples">Samples<' in page and "thing" in page
    assert "d2prune reshard --subset" in page and "Shards written" not in page and "Train on" not in page


def test_run_needs_no_open_clip(tables, metadata, tmp_path, monkeypatch, capsys):
    """Neither is imported with the stages (tests/test_public_api.py) nor later."""
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(json.loads(tables(metadata).model_dump_json(exclude_none=True))))
    for name in ("torchvision", "open_clip"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["run", "--config", str(config), "--no-ray"]) == 0
    printed = capsys.readouterr().out
    assert "reshard with  d2prune reshard --subset" in printed and "subset    " in printed


def test_from_s3_to_s3_the_same_bytes(tables, metadata, tmp_path):
    local = tables(metadata)
    run(local, InProcess())
    with s3_server.serve(tmp_path / "s3") as server, s3_server.environment(server):
        for bucket in ("pool", "scratch", "filtered"):
            server.make_bucket(bucket)
        for path in metadata.iterdir():
            store.write_bytes(f"s3://pool/meta/{path.name}", path.read_bytes())
        remote = tables("s3://pool/meta", work_dir="s3://scratch/run", output="s3://filtered/run")
        run(remote, InProcess())
        assert verify(remote.output, full=True) == []
    mine, theirs = tree(local.output), tree(server.folder / "filtered" / "run")
    assert mine.keys() == theirs.keys()
    for name in mine:
        if name.endswith((".npy", ".parquet", "meta.json")):
            assert mine[name] == theirs[name], name


def test_damaged_output_is_written_again(tables, metadata, caplog):
    config = tables(metadata)
    run(config, InProcess(), stop_after="select")
    assert not Path(config.output).exists()
    run(config, InProcess(), stop_after="write")
    before = tree(config.output)
    Path(config.output, "kept-00000001.parquet").unlink()
    Path(config.output, "manifest.json").unlink()
    run(config, InProcess(), stop_after="write")
    assert tree(config.output) == before


def test_verify_finds_every_fault(tables, metadata):
    config = tables(metadata)
    run(config, InProcess(), stop_after="write")
    path = metadata / "00000001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(2, "text", pa.array(["else"] * 40)), path)
    faults = verify(config.output, full=True)
    kept = pq.read_table(Path(config.output, "kept-00000001.parquet")).num_rows
    assert len(faults) == kept and all(
        "00000001, row" in fault and "text differs from the source" in fault for fault in faults
    )
    pq.write_table(table.set_column(0, "uid", pa.array(table["uid"].to_pylist()[::-1])), path)
    (fault,) = verify(config.output, full=True)
    assert "uids differ from column uid of the source" in fault
    path.unlink()
    (fault,) = verify(config.output)
    assert "cannot be compared with its source" in fault and "not found" in fault
    Path(config.output, "subset.npy").write_bytes(subset.to_bytes(subset.encode([])))
    Path(config.output, "kept-00000000.parquet").unlink()
    named = [fault.split(":")[0] for fault in verify(config.output)]
    assert named[0] == "kept-00000000.parquet" and named[-1] == "kept-00000001.parquet"
    assert {*named[1:-1]} == {"subset.npy", "decisions"}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"embed": {"model": "demo"}}, "embed.model = demo: the input already has embeddings"),
        ({"columns": {"text_emb": None}}, "graph.features = image+text: no text embeddings found"),
        ({"columns": {"txt_emb": "x"}}, "unknown key columns.txt_emb; did you mean columns.text_emb?"),
        ({"columns": {"image_emb": "h14"}}, "no embeddings called h14; found b32_img"),
        (
            {"columns": {"text_emb": None, "clip_score": None}, "graph": {"features": "image"}},
            "score.difficulty = clip_score: ",
        ),
        ({"embed": {"fields": {"nsfw": "number"}}}, "has no column nsfw; found uid, url"),
        ({"embed": {"fields": {"url": "number"}}}, "column url is string; expected numbers"),
        ({"columns": {"uid": "url"}}, "00000000.parquet: column url: found https://host/"),
    ],
)
def test_usage_errors_are_one_line(tables, metadata, tmp_path, capsys, change, line):
    values = json.loads(tables(metadata).model_dump_json(exclude_none=True))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values | change))
    assert main(["run", "--config", str(tmp_path / "run.yaml"), "--no-ray"]) == 2
    shown = [text for text in capsys.readouterr().err.splitlines() if text.startswith("d2prune: ")]
    assert len(shown) == 1 and line in shown[0]


def test_missing_model_is_one_line(tables, pool, tmp_path, capsys):
    values = json.loads(tables(pool).model_dump_json(exclude_none=True))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    assert main(["run", "--config", str(tmp_path / "run.yaml"), "--no-ray"]) == 2
    assert "embed.model is missing" in capsys.readouterr().err


def test_groups_and_difficulty_from_columns_with_image_features_only(tables, tmp_path):
    rows = make_rows(90)
    labelled = replace(rows, caption=[caption.split(",")[0] for caption in rows.caption])
    config = tables(
        write_datacomp(tmp_path / "meta", [labelled]),
        columns={"text_emb": None},
        embed={"fields": {"clip_b32_similarity_score": "number", "text": "text"}},
        score={"difficulty": "clip_b32_similarity_score"},
        select={"fraction": 0.3, "groups": "text"},
        graph={"features": "image", "n_neighbors": 4},
    )
    result = run(config, InProcess())
    decided = decisions(config, result)
    np.testing.assert_allclose(decided["difficulty"].to_numpy(), np.linspace(0, 1, 90), rtol=1e-6)
    kept, label = decided["kept"].to_numpy(zero_copy_only=False), np.array(labelled.caption)
    for name in np.unique(label):
        assert abs(kept[label == name].sum() - 0.3 * (label == name).sum()) < 1
    assert verify(config.output) == []
