"""Columns of a pool by part and by canonical position, against the concatenation of its parts."""

import numpy as np
import pyarrow as pa
import pytest

from d2prune import store
from d2prune.errors import BooksError, DamagedFileError, InfrastructureError
from d2prune.parts import files
from d2prune.parts.reader import Parts
from d2prune.store import artifacts
from d2prune.store.columns import vector_column

ROWS = (3, 0, 4)
VECTORS = np.random.default_rng(0).standard_normal((7, 2)).astype(np.float16)


@pytest.fixture
def work_dir(tmp_path):
    return str(tmp_path)


@pytest.fixture
def parts(work_dir):
    """Captions `s0` to `s6`, and their decisions, in parts of 3, 0 and 4 rows."""
    units = {"embed": [], "select": []}
    start = 0
    for part, rows in enumerate(ROWS):
        numbers = range(start, start + rows)
        vectors = vector_column(VECTORS[start : start + rows])
        samples = pa.table({"caption": pa.array([f"s{number}" for number in numbers], pa.string())})
        embeddings = pa.table({"image_emb": vectors})
        decisions = pa.table({"kept": pa.array([number % 2 == 0 for number in numbers], pa.bool_())})
        tables = {files.SAMPLES: samples, files.EMBEDDINGS: embeddings}
        units["embed"].append(artifacts.commit_unit(store.join(work_dir, "embed"), f"{part}", tables))
        folder = store.join(work_dir, "select")
        units["select"].append(artifacts.commit_unit(folder, f"{part}", {files.DECISIONS: decisions}))
        start += rows
    return Parts(work_dir, units)


def test_whole_columns_are_in_canonical_order(parts):
    expected = [f"s{number}" for number in range(7)]
    assert len(parts) == 7 and parts.column(files.SAMPLES, "caption").to_pylist() == expected
    read = [
        (start, table["caption"].to_pylist()) for start, table in parts.read_all(files.SAMPLES, ["caption"])
    ]
    assert read == [(0, expected[:3]), (3, expected[3:])]


def test_rows_are_taken_in_the_order_of_the_positions(parts):
    positions = np.array([5, 0, 6, 5, 2])
    taken = parts.take_merged(positions, ["caption", "kept"])
    assert taken["caption"].to_pylist() == [f"s{position}" for position in positions]
    assert taken["kept"].to_pylist() == [False, True, True, False, True]
    image, text = parts.take_vectors(positions)
    assert image.tobytes() == VECTORS[positions].tobytes() and text.shape == (5, 0)
    assert parts.take(positions[:0], files.SAMPLES, ["caption"]).num_rows == 0


def test_tables_of_another_run_are_not_aligned(parts, work_dir):
    parts.check_aligned(files.DECISIONS)
    units = {"embed": [parts.receipt(0, files.SAMPLES)], "select": [parts.receipt(2, files.DECISIONS)]}
    with pytest.raises(BooksError, match=r"decisions.parquet: found 4 rows in 1 parts; expected 3 rows in 1"):
        Parts(work_dir, units).check_aligned(files.DECISIONS)


def test_a_missing_stage_or_file_is_an_infrastructure_error(parts):
    with pytest.raises(InfrastructureError, match="no rank artifact found"):
        parts.peek(0, files.RANKS, ["selection_score"])
    folder, receipt = parts.folder(files.SAMPLES), parts.receipt(0, files.SAMPLES)
    store.delete([artifacts.unit_url(folder, receipt.key, files.SAMPLES)])
    with pytest.raises(DamagedFileError, match=r"samples.parquet: not found, .*; the next run rebuilds it"):
        parts.peek(0, files.SAMPLES, ["caption"])
