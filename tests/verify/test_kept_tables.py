"""Tables of kept samples against the tables they were copied from."""

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from d2prune import store
from d2prune.store import schemas
from d2prune.store.artifacts import FileRecord
from d2prune.verify.kept_tables import KeptTableCheck, KeptTableChecker

UIDS = [f"{i:032x}" for i in range(6)]
ROWS = [1, 2, 5]


@pytest.fixture
def source(tmp_path):
    table = pa.table({"id": UIDS, "text": list("abcdef"), "score": [math.nan] * 6})
    pq.write_table(table, tmp_path / "source.parquet")
    return table


@pytest.fixture
def check(tmp_path, source):
    """Verify a table of the rows `ROWS` of the source, with changed or added columns."""

    def verify(shard="source", samples=None, **columns):
        kept = {field.name: pa.nulls(len(ROWS), field.type) for field in schemas.KEPT}
        kept |= {"uid": [UIDS[row] for row in ROWS], "shard": [shard] * len(ROWS), "row": ROWS}
        copied = {name: source[name].take(pa.array(ROWS)) for name in source.column_names}
        pq.write_table(pa.table(kept | copied | columns), tmp_path / "kept.parquet")
        sources = {"source": store.info(str(tmp_path / "source.parquet")).url}
        checker = KeptTableChecker(str(tmp_path), sources, "id", samples, 0)
        return checker(KeptTableCheck(FileRecord("kept.parquet", len(ROWS), 0, "")))[1]

    return verify


@pytest.mark.parametrize("samples", [None, 1])
def test_a_copy_has_no_faults_and_nan_equals_nan(check, samples):
    assert check(samples=samples) == []


def test_a_changed_value_is_reported_by_row_and_column(check):
    assert check(text=["b", "X", "f"]) == ["kept.parquet: source, row 2: text differs from the source"]


def test_a_changed_uid_is_reported(check):
    assert check(uid=[UIDS[1], UIDS[3], UIDS[5]]) == [
        "kept.parquet: source: uids differ from column id of the source"
    ]


def test_a_column_that_the_source_lacks_is_reported(check):
    assert check(more=[1, 2, 3]) == ["kept.parquet: source: the source has no column more"]


def test_an_unknown_input_table_is_reported(check):
    assert check(shard="other") == ["kept.parquet: input table other is not in the manifest"]


def test_rows_beyond_the_source_are_reported(check):
    (fault,) = check(row=[1, 2, 7])
    assert fault.startswith("kept.parquet: cannot be compared with its source: ")
