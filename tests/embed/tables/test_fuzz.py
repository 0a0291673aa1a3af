"""Random tables: types, nulls, names, sizes and arrays beside them.

Every pool is imported, each row a sample or a reject, or is refused by one line. What the checks
before a run let through, the workers can read.
"""

import datetime
import decimal
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.embed.tables.importer import ImportParams, ImportWorker, plan
from d2prune.errors import UserError
from d2prune.inputs import rejects
from d2prune.inputs.find import find_input
from d2prune.inputs.tables.column_names import WantedColumns, resolve_columns
from d2prune.inputs.tables.files import split_tables
from d2prune.inputs.tables.schema_check import check_files, check_uids, find_dimension
from d2prune.output.source_rows import name_kept_columns, read_source_rows
from d2prune.store import artifacts
from tests.fuzzing import fuzz

NAMES = ("uid", "text", "clip_score", "key", "width", "height", "score", "shard", "kept", "a.b", "", "ü\n")
FIELDS = [("score", "number"), ("a.b", "text"), ("ü\n", "text"), ("", "number")]
FLOATS = st.one_of(st.sampled_from([0.0, 1.0, -2.5]), st.floats(width=16))
HEX = "0123456789abcdef" * 2
VALUES = {
    pa.null(): st.none(),
    pa.bool_(): st.booleans(),
    pa.int8(): st.integers(-128, 127),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float16(): FLOATS.map(np.float16),
    pa.float64(): st.floats(),
    pa.decimal128(38, 6): st.integers(-(10**20), 10**20).map(decimal.Decimal),
    pa.string(): st.one_of(st.text(max_size=8), st.sampled_from([HEX, HEX.upper()])),
    pa.large_string(): st.text(max_size=8),
    pa.string_view(): st.text(max_size=20),
    pa.binary(): st.one_of(st.binary(max_size=8), st.binary(min_size=16, max_size=16)),
    pa.binary_view(): st.binary(max_size=20),
    pa.binary(16): st.binary(min_size=16, max_size=16),
    pa.dictionary(pa.int32(), pa.string()): st.sampled_from(["a", "b", HEX]),
    pa.timestamp("us", "UTC"): st.datetimes(),
    pa.date32(): st.dates(),
    pa.duration("ms"): st.timedeltas(datetime.timedelta(-9), datetime.timedelta(9)),
    pa.struct([("a", pa.int64()), ("uid", pa.string_view())]): st.fixed_dictionaries({"a": st.none()}),
    pa.map_(pa.string(), pa.int64()): st.lists(st.tuples(st.text(max_size=2), st.just(1)), max_size=2),
    pa.list_(pa.int32()): st.lists(st.integers(0, 9), max_size=3),
    pa.list_(pa.list_(pa.float32())): st.lists(st.lists(FLOATS, max_size=2), max_size=2),
}
VECTORS = [
    pa.list_(pa.float16()),
    pa.list_(pa.float32()),
    pa.large_list(pa.float64()),
    pa.list_view(pa.float32()),
    pa.large_list_view(pa.float64()),
    pa.list_(pa.float32(), 2),
    pa.null(),
]


@st.composite
def vectors(draw, rows):
    """A column of embeddings, some of them missing, invalid or of another length."""
    kind = draw(st.sampled_from(VECTORS))
    if kind == pa.null():
        return pa.nulls(rows)
    length = st.just(2) if pa.types.is_fixed_size_list(kind) else st.sampled_from([2, 2, 2, 0, 3])
    item = st.one_of(FLOATS, st.none()) if draw(st.booleans()) else FLOATS
    if kind.value_type == pa.float16():
        item = item.map(lambda value: None if value is None else np.float16(value))
    lists = length.flatmap(lambda n: st.lists(item, min_size=n, max_size=n))
    return pa.array(draw(st.lists(st.one_of(lists, st.none()), min_size=rows, max_size=rows)), kind)


@st.composite
def plain(draw, rows, kinds):
    """A column of one type, with nulls."""
    kind = draw(st.sampled_from(kinds))
    values = draw(st.lists(st.one_of(st.none(), VALUES[kind]), min_size=rows, max_size=rows))
    return pa.array(values, kind)


@st.composite
def tables(draw, names, kinds):
    """A table of a few rows; most of its columns have the types of the other files."""
    rows = draw(st.sampled_from([0, 1, 2, 5]))
    columns = {}
    for name in names:
        odd = draw(st.integers(0, 9))
        if odd == 0:
            continue
        if name.endswith("_emb"):
            columns[name] = draw(vectors(rows))
        else:
            columns[name] = draw(plain(rows, list(VALUES) if odd == 1 else [kinds[name]]))
    names = list(columns)
    if names and draw(st.integers(0, 19)) == 0:
        names[-1] = names[0]
    return pa.Table.from_arrays(list(columns.values()), names=names)


@st.composite
def pools(draw):
    """Tables, and arrays beside some of them."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=6))
    kinds = {name: draw(st.sampled_from(list(VALUES))) for name in names}
    names += draw(st.sampled_from([["image_emb"], ["image_emb", "text_emb"], ["text_emb"], []]))
    files = draw(st.lists(tables(names, kinds), min_size=1, max_size=3))
    layout = draw(st.sampled_from(["columns", "columns", "npz", "npy"]))
    shapes = [
        (table.num_rows + draw(st.sampled_from([0] * 9 + [1])), draw(st.sampled_from([2] * 9 + [3])))
        for table in files
    ]
    dtype = draw(st.sampled_from(["f2", "f4", ">f8", "f4", "i4"]))
    arrays = [np.arange(rows * width).reshape(rows, width).astype(dtype) for rows, width in shapes]
    return files, layout, arrays


def write_pool(folder, files, layout, arrays):
    for number, (table, array) in enumerate(zip(files, arrays, strict=True)):
        pq.write_table(table, folder / f"{number}.parquet")
        if layout == "npz":
            np.savez(folder / f"{number}.npz", l14_img=array)
        elif layout == "npy":
            np.save(folder / f"{number}.image_emb.npy", array)


def check(folder, wanted, fields):
    """Do what a run does before its first stage."""
    files = find_input(str(folder))
    columns = resolve_columns(files, wanted)
    params = ImportParams(columns, find_dimension(files, columns), fields)
    check_files(files, columns, fields, params.dimension)
    if columns.uid is not None:
        check_uids(files, columns.uid)
    return files, params


def import_rows(files, params, work):
    """Import all parts, and copy the columns of every sample as the write stage does."""
    worker = ImportWorker(str(work), params)
    for unit in plan(split_tables(files, 1 << 20), params):
        receipt = worker(unit)
        samples, rejected = (
            artifacts.read_table(str(work), receipt, name) for name in ("samples.parquet", "rejects.parquet")
        )
        assert samples.num_rows + rejected.num_rows == receipt.counters["read"]
        assert set(rejected["reason"].to_pylist()) <= rejects.MEANINGS.keys()
        source = read_source_rows(unit.shard.source.table, samples["offset"].to_numpy(), [])
        names = name_kept_columns(source.column_names)
        assert len({*names.values()}) == len(source.column_names)
        copied = pq.read_table(pa.BufferReader(artifacts.table_bytes(source.combine_chunks())))
        assert str(copied.to_pylist(maps_as_pydicts="lossy")) == str(
            source.to_pylist(maps_as_pydicts="lossy")
        )


@fuzz
@settings(deadline=None, max_examples=40)
@given(
    pool=pools(),
    fields=st.lists(
        st.tuples(st.sampled_from(["score", "a.b", "ü\n"]), st.sampled_from(["number", "text"])), max_size=1
    ),
    uid=st.sampled_from(["auto", None, "auto", "key"]),
)
def test_any_table_is_imported_or_refused_before_the_run(pool, fields, uid):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pool").mkdir()
        write_pool(folder / "pool", *pool)
        try:
            files, params = check(folder / "pool", WantedColumns(uid=uid), tuple(fields))
        except UserError as error:
            assert "\n" not in str(error) and ("pool/" in str(error) or str(error).startswith("input: "))
            return
        try:
            import_rows(files, params, folder / "work")
        except UserError as error:
            # The width of lists is that of their values: only reading all of them shows it.
            assert f"dimensions; expected {params.dimension}" in str(error)
