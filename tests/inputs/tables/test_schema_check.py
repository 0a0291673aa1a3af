"""Faults in any file's schema are found before a run starts, by one line that names file and column."""

import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from d2prune.cli.main import main
from d2prune.errors import UserError
from d2prune.inputs.tables.schema_check import check_files, check_uids, find_dimension
from tests.inputs.table_pools import find_columns, find_tables
from tests.tables import datacomp_table, make_rows, write_columns, write_datacomp

FIELDS = [("clip_b32_similarity_score", "number"), ("url", "text")]
PARTS = [make_rows(3, seed) for seed in range(9)]
TABLE = datacomp_table(PARTS[6])


def check(folder, fields=FIELDS, **wanted):
    """Check a pool as a run does before its first stage."""
    files = find_tables(str(folder))
    columns = find_columns(folder, **wanted)
    check_files(files, columns, fields, find_dimension(files, columns))
    if columns.uid is not None:
        check_uids(files, columns.uid)


def replaced(name, values):
    return TABLE.set_column(TABLE.column_names.index(name), name, values)


def doubled(name):
    columns = [*TABLE.columns, TABLE[name]]
    return pa.Table.from_arrays(columns, names=[*TABLE.column_names, name])


SCORE = "clip_l14_similarity_score"
SCHEMAS = {
    # The table of the 7th of 9 files, and what is said of it; None: it is taken.
    "same": (TABLE, None),
    "other-order": (TABLE.select(TABLE.column_names[::-1]), None),
    "more": (TABLE.append_column("more", pa.array([1, 2, 3])), None),
    "all-null-score": (replaced(SCORE, pa.nulls(3)), None),
    "all-null-text": (replaced("text", pa.nulls(3)), None),
    "all-null-uid": (replaced("uid", pa.nulls(3)), None),
    "decimal-score": (replaced(SCORE, TABLE[SCORE].cast(pa.decimal128(20, 10), safe=False)), None),
    "dictionary": (replaced("text", TABLE["text"].combine_chunks().dictionary_encode()), None),
    "views": (replaced("text", TABLE["text"].cast(pa.string_view())), None),
    "bytes-uid": (replaced("uid", pa.array([bytes(16)] * 3, pa.binary(16))), None),
    "twice": (doubled("url"), "2 columns are called url; expected each name once"),
    "no-score": (TABLE.drop_columns([SCORE]), f"has no column {SCORE}; found uid, url"),
    "no-field": (TABLE.drop_columns(["url"]), "has no column url; found uid, text"),
    "no-two": (TABLE.drop_columns(["uid", SCORE]), f"has no column {SCORE}, uid; found url"),
    "text-score": (replaced(SCORE, pa.array(list("abc"))), f"column {SCORE} is string; expected numbers"),
    "bool-score": (replaced(SCORE, pa.array([True] * 3)), f"column {SCORE} is bool; expected numbers"),
    "list-text": (replaced("text", pa.array([["a"]] * 3)), "column text is list<"),
    "int-uid": (replaced("uid", pa.array([1, 2, 3])), "column uid is int64; expected uids of 32 hex digits"),
    "wide-uid": (replaced("uid", pa.array([b"a" * 20] * 3, pa.binary(20))), "uid is fixed_size_binary[20]"),
    "fewer-rows": (TABLE.slice(1), "00000006.parquet has 2 rows, but l14_img in "),
    "more-rows": (pa.concat_tables([TABLE, TABLE]), "00000006.parquet has 6 rows, but l14_img in "),
    "no-rows": (TABLE.slice(0, 0), "00000006.parquet has 0 rows, but l14_img in "),
    "no-columns": (TABLE.select([]), "00000006.parquet has 0 rows, but l14_img in "),
}  # fmt: skip


@pytest.fixture
def pool(tmp_path) -> pathlib.Path:
    return write_datacomp(tmp_path / "pool", PARTS)


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_schema_of_the_seventh_file_is_taken_or_refused(pool, name):
    table, message = SCHEMAS[name]
    pq.write_table(table, pool / "00000006.parquet")
    if message is None:
        check(pool)
        return
    with pytest.raises(UserError) as caught:
        check(pool)
    assert f"{pool}/00000006.parquet" in str(caught.value) and message in str(caught.value)
    assert "\n" not in str(caught.value)


ARRAYS = {
    "missing": ({"l14_img": PARTS[6].image}, "no embeddings called l14_txt; found l14_img"),
    "rows": ({"l14_img": PARTS[6].image, "l14_txt": PARTS[6].text[:2]}, "but l14_txt in"),
    "width": ({"l14_img": PARTS[6].image, "l14_txt": PARTS[6].text[:, :8]}, "has 8 dimensions; expected 16"),
    "type": ({"l14_img": PARTS[6].image, "l14_txt": np.ones((3, 16), int)}, "l14_txt: int64 (3, 16)"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARRAYS)
def test_each_fault_of_the_seventh_array_is_refused(pool, name):
    arrays, message = ARRAYS[name]
    np.savez(pool / "00000006.npz", **arrays)
    with pytest.raises(UserError) as caught:
        check(pool)
    assert f"{pool}/00000006.npz" in str(caught.value) and message in str(caught.value)


def test_files_that_are_not_tables_are_refused_by_name(pool):
    for name, data in (("00000006.parquet", b""), ("00000006.npz", b"text")):
        good = (pool / name).read_bytes()
        (pool / name).write_bytes(data)
        with pytest.raises(UserError, match=name):
            check(pool)
        (pool / name).write_bytes(good)
    check(pool)


EMPTY = {
    "same-schema": lambda table: table.slice(0, 0),
    "all-null": lambda table: pa.table({name: pa.nulls(0) for name in table.column_names}),
    "no-columns": lambda table: pa.table({}),
    "other-lists": lambda table: table.slice(0, 0).set_column(
        table.column_names.index("image_emb"), "image_emb", pa.array([], pa.list_(pa.float64()))
    ),
}  # fmt: skip


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_partition_is_taken_wherever_it_is(tmp_path, name, at):
    pool = write_columns(tmp_path, PARTS[:3])
    path = pool / f"part-{at}.parquet"
    pq.write_table(EMPTY[name](pq.read_table(path)), path)
    check(pool, fields=[])


def test_an_empty_partition_with_arrays_is_taken(pool):
    pq.write_table(TABLE.slice(0, 0), pool / "00000000.parquet")
    for empty in (np.zeros((0, 16)), np.zeros((0, 0)), np.array([]), np.zeros((0, 8))):
        np.savez(pool / "00000000.npz", l14_img=empty, l14_txt=empty)
        check(pool)


def test_a_pool_without_rows_or_embeddings_is_refused(tmp_path):
    pool = write_columns(tmp_path / "empty", [PARTS[0]])
    (path,) = pool.glob("*.parquet")
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 0), path)
    with pytest.raises(UserError, match=r"none of 1 tables has rows, such as .*part-0\.parquet"):
        check(pool, fields=[])
    pq.write_table(table.set_column(table.column_names.index("image_emb"), "image_emb", pa.nulls(3)), path)
    with pytest.raises(UserError, match=r"no row has an embedding in column image_emb: 1 files"):
        check(pool, fields=[])


def test_uids_of_the_first_rows_are_looked_at(tmp_path):
    pool = write_columns(tmp_path, PARTS[:2])
    for path in sorted(pool.glob("*.parquet")):
        table = pq.read_table(path)
        pq.write_table(table.append_column("id", pa.array(["a\nb", None, "c"])), path)
    with pytest.raises(UserError, match=r"part-0\.parquet: column id: found a b; expected uids of 32 hex"):
        check(pool, fields=[], uid="id")


def test_a_fault_in_a_late_file_stops_the_command_before_the_stages(pool, tmp_path, capsys):
    pq.write_table(SCHEMAS["twice"][0], pool / "00000006.parquet")
    (tmp_path / "run.yaml").write_text(
        f"input: {pool}\nwork_dir: {tmp_path}/work\noutput: {tmp_path}/out\nselect: {{fraction: 1}}\n"
    )
    assert main(["run", "--config", str(tmp_path / "run.yaml"), "--no-ray"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{pool}/00000006.parquet: 2 columns are called url" in line
    assert not (tmp_path / "work").exists() and not (tmp_path / "out").exists()
