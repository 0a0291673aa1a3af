"""A run over tables with every odd column: rows are kept or rejected, and no column of a user is lost."""

import decimal
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from d2prune.cli.main import main
from d2prune.output import subset
from d2prune.store import schemas
from tests.tables import make_rows, write_clip_retrieval, write_datacomp

ROWS = make_rows(36, 4)


def odd_table(uid, start, stop, image=None):
    """Rows of `ROWS` with odd columns, and with columns named like those of the output."""
    count = stop - start
    image = ROWS.image[start:stop].astype(np.float32).tolist() if image is None else image
    return pa.table(
        {
            "uid": uid,
            "text": pa.array(ROWS.caption[start:stop]).dictionary_encode(),
            "score": pa.array([decimal.Decimal(i) / 100 for i in range(count)], pa.decimal128(8, 4)),
            "image_emb": image,
            "text_emb": pa.array(ROWS.text[start:stop].tolist(), pa.large_list(pa.float16())),
            "shard": pa.array([f"mine {i}" for i in range(count)], pa.string_view()),
            "row": pa.array([{"a": i, "b": [str(i)]} for i in range(count)]),
            "source_row": pa.array([[("k", i)] for i in range(count)], pa.map_(pa.string(), pa.int64())),
            "kept": pa.array([None] * count, pa.null()),
            "difficulty": pa.array(range(count), pa.uint64()),
            "when": pa.array(range(count), pa.timestamp("us", "UTC")),
            "a.b": pa.array([b"\xff"] * count, pa.binary_view()),
            "": pa.array(["unnamed"] * count),
            "line\nbreak": pa.array([1.5] * count, pa.float16()),
        }
    )


@pytest.fixture
def pool(tmp_path):
    """Six files: two without rows, one without embeddings, three with uids of different types."""
    folder = tmp_path / "pool"
    folder.mkdir()
    uuids = [str(UUID(uid)) for uid in ROWS.uid]
    files = {
        "0": pa.table({}),
        "1": odd_table([uid.upper() for uid in ROWS.uid[:12]], 0, 12),
        "2": odd_table(pa.array(ROWS.uid[12:14]), 12, 14, image=pa.nulls(2)),
        "3": odd_table(pa.array(uuids[14:24]), 14, 24),
        "4": odd_table(pa.array([bytes.fromhex(uid) for uid in ROWS.uid[24:36]], pa.binary(16)), 24, 36),
        "5": odd_table(ROWS.uid[:1], 0, 1).slice(0, 0),
    }
    for name, table in files.items():
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


@pytest.fixture
def call(tmp_path):
    """Run the command over a pool; returns the exit code."""

    def run(pool, **changes):
        values = {
            "input": str(pool),
            "work_dir": str(tmp_path / "work"),
            "output": str(tmp_path / "out"),
            "graph": {"n_neighbors": 3},
            "select": {"fraction": 0.5},
        }
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(values | changes))
        return main(["run", "--config", str(tmp_path / "run.yaml"), "--no-ray"])

    return run


RENAMED = {"row": "source_source_row", **{name: f"source_{name}" for name in ("shard", "kept", "difficulty")}}
LEFT_OUT = ("uid", "image_emb", "text_emb")


def rows_of(path):
    return pq.read_table(path).to_pylist(maps_as_pydicts="strict")


def test_a_run_over_every_odd_column(pool, call, tmp_path, capsys):
    out, columns = tmp_path / "out", {"clip_score": "score"}
    assert call(pool, columns=columns, embed={"fields": {"row": "text"}}) == 2
    assert "1.parquet: column row is struct<a: int64, b: list<" in capsys.readouterr().err
    fields = {"when": "text", "a.b": "text", "": "text"}
    assert call(pool, columns=columns, embed={"fields": fields}) == 0
    shown = capsys.readouterr().out
    assert "  embedding-invalid  2" in shown and "reshard with" in shown
    assert main(["verify", "--full", str(out)]) == 0
    kept = [row for path in sorted(out.glob("kept-*.parquet")) for row in rows_of(path)]
    assert len(kept) == 17 and {row["shard"] for row in kept} == {"1", "3", "4"}
    source = {path.stem: rows_of(path) for path in pool.glob("*.parquet")}
    for row in kept:
        theirs = source[row["shard"]][row["row"]]
        for name, value in theirs.items():
            if name not in LEFT_OUT:
                assert row[RENAMED.get(name, name)] == value
        assert len(row) == len(schemas.KEPT) + len(theirs) - len(LEFT_OUT)
    listed = subset.decode(subset.read(str(out / "subset.npy")))
    assert listed == sorted(row["uid"] for row in kept) and set(listed) <= set(ROWS.uid)
    for name in (listed[0].upper(), str(UUID(listed[0]))):
        assert main(["explain", str(tmp_path / "work"), name]) == 0
        assert listed[0] in capsys.readouterr().out


def test_reshard_is_advised_only_where_tars_have_the_uids(call, tmp_path, capsys):
    """Uids that were hashed from embeddings are in no tar."""
    pool = write_clip_retrieval(tmp_path / "retrieval", [ROWS])
    assert call(pool, columns={"uid": None}) == 0
    shown = capsys.readouterr().out
    assert "subset" in shown and "d2prune reshard" not in shown
    (page,) = (tmp_path / "work" / "report").rglob("report.html")
    assert "d2prune reshard" not in page.read_text()


def test_a_uid_that_the_run_does_not_use_is_kept(call, tmp_path):
    pool = write_datacomp(tmp_path / "metadata", [ROWS])
    assert call(pool, columns={"uid": None}) == 0
    kept = pq.read_table(tmp_path / "out" / "kept-00000000.parquet")
    assert (
        set(kept["source_uid"].to_pylist()) <= set(ROWS.uid) and "source_clip_score" not in kept.column_names
    )
    assert not set(kept["uid"].to_pylist()) & set(ROWS.uid)
    assert main(["verify", "--full", str(tmp_path / "out")]) == 0
