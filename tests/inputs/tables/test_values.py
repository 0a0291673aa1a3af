"""Every Arrow type that parquet stores is read as a number, a text or a uid, or refused by name."""

import datetime
import decimal
import io
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.inputs.sample_id import MAX_TEXT, normal_uid
from d2prune.inputs.tables.values import (
    NUMBER,
    TEXT,
    UID,
    VECTOR,
    can_be_read,
    read_numbers,
    read_texts,
    read_uids,
)

HEX = "0123456789abcdef" * 2
RAW = bytes.fromhex(HEX)
DAY = datetime.datetime(2020, 1, 2, 3)


def extension(kind, storage):
    return pa.ExtensionArray.from_storage(kind, storage)


NO = object()
# Type: a column of [value, null], and its value as a number, a text, a uid; NO: refused.
COLUMNS = {
    "null": (pa.nulls(2), None, "", None),
    "bool": (pa.array([True, None]), NO, "true", NO),
    "int8": (pa.array([-3, None], pa.int8()), -3.0, "-3", NO),
    "int64": (pa.array([2**62, None]), 2.0**62, str(2**62), NO),
    "uint64": (pa.array([2**64 - 1, None], pa.uint64()), 2.0**64, str(2**64 - 1), NO),
    "float16": (pa.array([1.5, None], pa.float16()), 1.5, "1.5", NO),
    "float32": (pa.array([1.5, None], pa.float32()), 1.5, "1.5", NO),
    "double": (pa.array([-0.0, None]), -0.0, "-0", NO),
    "decimal": (pa.array([decimal.Decimal("1.25"), None]), 1.25, "1.25", NO),
    "decimal256": (pa.array([decimal.Decimal("1.25"), None], pa.decimal256(60, 2)), 1.25, "1.25", NO),
    "date": (pa.array([DAY.date(), None]), NO, "2020-01-02", NO),
    "time": (pa.array([DAY.time(), None], pa.time32("ms")), NO, "03:00:00.000", NO),
    "timestamp": (pa.array([DAY, None], pa.timestamp("ms")), NO, "2020-01-02 03:00:00.000", NO),
    "timestamp-utc": (pa.array([DAY, None], pa.timestamp("ms", "UTC")), NO, "2020-01-02 03:00:00.000Z", NO),
    "timestamp-nowhere": (pa.array([DAY, None], pa.timestamp("ms", "Mars/Base")), NO, "", NO),
    "duration": (pa.array([datetime.timedelta(1), None], pa.duration("s")), NO, "86400", NO),
    "string": (pa.array([HEX.upper(), None]), NO, HEX.upper(), HEX),
    "string-uuid": (pa.array([str(UUID(HEX)), None]), NO, str(UUID(HEX)), HEX),
    "string-other": (pa.array([f" {HEX}", None]), NO, f" {HEX}", None),
    "string-nul": (pa.array(["a\0b", None]), NO, "a\0b", None),
    "large_string": (pa.array([HEX, None], pa.large_string()), NO, HEX, HEX),
    "string_view": (pa.array([HEX, None], pa.string_view()), NO, HEX, HEX),
    "dictionary": (pa.array([HEX, None]).dictionary_encode(), NO, HEX, HEX),
    "dictionary-int": (pa.array([7, None]).dictionary_encode(), 7.0, "7", NO),
    "binary": (pa.array([RAW, None]), NO, RAW.decode("utf-8", "replace"), HEX),
    "binary-text": (pa.array([HEX.encode(), None]), NO, HEX, HEX),
    "large_binary": (pa.array([RAW, None], pa.large_binary()), NO, RAW.decode("utf-8", "replace"), HEX),
    "binary_view": (pa.array([RAW, None], pa.binary_view()), NO, RAW.decode("utf-8", "replace"), HEX),
    "binary[16]": (pa.array([RAW, None], pa.binary(16)), NO, RAW.decode("utf-8", "replace"), HEX),
    "binary[32]": (pa.array([HEX.encode(), None], pa.binary(32)), NO, HEX, HEX),
    "binary[20]": (pa.array([b"a" * 20, None], pa.binary(20)), NO, "a" * 20, NO),
    "json": (extension(pa.json_(), pa.array(["{}", None])), NO, "{}", None),
    "uuid": (extension(pa.uuid(), pa.array([RAW, None], pa.binary(16))), NO, str(UUID(HEX)), HEX),
    "list": (pa.array([[1], None]), NO, NO, NO),
    "struct": (pa.array([{"a": 1}, None]), NO, NO, NO),
    "map": (pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())), NO, NO, NO),
}


def stored(column):
    """The column as parquet gives it back."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": column}), sink)
    return pq.read_table(sink)["x"].combine_chunks()


@pytest.mark.parametrize("name", COLUMNS)
def test_each_type_is_read_or_refused(name):
    given_, number, text, uid = COLUMNS[name]
    for column in (given_, stored(given_), given_.slice(1), given_.slice(0, 0)):
        rows = slice(0, 2) if len(column) == 2 else slice(1, 1 + len(column))
        kinds = [number is not NO, text is not NO, uid is not NO]
        assert [can_be_read(column.type, kind) for kind in (NUMBER, TEXT, UID)] == kinds
        if number is not NO:
            for kind in (pa.float32(), pa.float64()):
                assert read_numbers(column, kind).to_pylist() == [number, None][rows]
        if text is not NO:
            assert read_texts(column)[0].to_pylist() == [text, ""][rows]
        if uid is not NO:
            assert read_uids(column).to_pylist() == [uid, None][rows]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (pa.list_(pa.float16()), True),
        (pa.large_list(pa.float32()), True),
        (pa.list_view(pa.float64()), True),
        (pa.large_list_view(pa.float16()), True),
        (pa.list_(pa.float32(), 4), True),
        (pa.fixed_shape_tensor(pa.float32(), [4]), True),
        (pa.null(), True),
        (pa.list_(pa.int8()), False),
        (pa.list_(pa.decimal128(4)), False),
        (pa.list_(pa.list_(pa.float32())), False),
        (pa.float32(), False),
        (pa.string(), False),
        (pa.binary(16), False),
    ],
    ids=str,
)
def test_lists_of_floats_can_hold_embeddings(kind, expected):
    assert can_be_read(kind, VECTOR) == expected


TEXTS = st.one_of(st.none(), st.text(max_size=40), st.uuids().map(str), st.uuids().map(lambda uid: uid.hex))


@settings(deadline=None)
@given(st.lists(TEXTS))
def test_uids_of_tables_are_those_of_json(values):
    expected = [None if value is None else normal_uid(value) for value in values]
    assert read_uids(pa.array(values, pa.string())).to_pylist() == expected
    # 16 bytes are a uid, whatever they are as a text.
    raw = [None if value is None or len(value.encode()) == 16 else value.encode() for value in values]
    expected = [uid if value is not None else None for uid, value in zip(expected, raw, strict=True)]
    assert read_uids(pa.array(raw, pa.binary())).to_pylist() == expected


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.binary(min_size=16, max_size=16)), max_size=20), st.integers(0, 5))
def test_uids_of_16_bytes(values, start):
    expected = [None if value is None else value.hex() for value in values][start:]
    for kind in (pa.binary(16), pa.binary(), pa.large_binary()):
        assert read_uids(pa.array(values, kind).slice(start)).to_pylist() == expected


def test_bytes_that_are_not_utf8_are_replaced_and_long_texts_are_cut():
    raw = pa.array([b"good", b"\xff bad", None, b"x" * (MAX_TEXT + 1)], pa.binary())
    unchecked = pa.Array.from_buffers(pa.string(), 4, raw.buffers())
    for column in (raw, unchecked, unchecked.cast(pa.large_string(), safe=False)):
        texts, n_cut = read_texts(column)
        assert texts.to_pylist() == ["good", "\ufffd bad", "", "x" * MAX_TEXT] and n_cut == 1
    exact, n_cut = read_texts(pa.array(["é" * MAX_TEXT]))
    assert exact.to_pylist() == ["é" * MAX_TEXT] and n_cut == 0


@settings(deadline=None)
@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from(["s", "ms", "ns"]), st.sampled_from([None, "UTC"]))
def test_any_timestamp_is_a_text(value, unit, zone):
    column = pa.array(np.array([value, 0]), pa.int64()).cast(pa.timestamp(unit, zone), safe=False)
    texts, _ = read_texts(column)
    assert texts[1].as_py().startswith("1970-01-01") and texts[0].is_valid
