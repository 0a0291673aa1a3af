"""Columns of a table as the types of the samples table: texts, numbers and uids, whatever they are stored as.

The checks look at types only, so they run on schemas before a run starts. An all-null column (Arrow
type null) has every type.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from d2prune.inputs.sample_id import MAX_TEXT, UID_PATTERN

_UID_BYTES = 16
_UID_WIDTHS = (_UID_BYTES, 32, 36)


@dataclass(frozen=True)
class Kind:
    """What a column is read as.

    Attributes:
        accepts: whether a type can be read so; for extension and dictionary types, that of their
            values.
        expected: for messages.
    """

    accepts: Callable[[pa.DataType], bool]
    expected: str


def _is_number(kind: pa.DataType) -> bool:
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _is_string(kind: pa.DataType) -> bool:
    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or _is_bytes(kind)
    )


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    )


def _is_uid(kind: pa.DataType) -> bool:
    return _is_string(kind) and not (types.is_fixed_size_binary(kind) and kind.byte_width not in _UID_WIDTHS)


def _is_vector(kind: pa.DataType) -> bool:
    checks = (
        types.is_fixed_size_list,
        types.is_list,
        types.is_large_list,
        types.is_list_view,
        types.is_large_list_view,
    )
    return any(check(kind) for check in checks) and bool(types.is_floating(kind.value_type))


def _is_text(kind: pa.DataType) -> bool:
    return bool(_is_string(kind) or _is_number(kind) or types.is_boolean(kind) or types.is_temporal(kind))


NUMBER = Kind(_is_number, "numbers")
TEXT = Kind(_is_text, "texts")
UID = Kind(_is_uid, "uids of 32 hex digits, UUIDs or 16 bytes (columns.uid: null makes uids from hashes)")
VECTOR = Kind(_is_vector, "lists of floats")


def can_be_read(kind: pa.DataType, wanted: Kind) -> bool:
    """Return whether a column of this type can be read as the wanted kind."""
    kind = _plain_type(kind)
    return bool(types.is_null(kind)) or wanted.accepts(kind)


def is_null(kind: pa.DataType) -> bool:
    """Return whether all values of a column of this type are null."""
    return bool(types.is_null(_plain_type(kind)))


def fixed_width(kind: pa.DataType) -> int | None:
    """Return the length of every list of a column; None if each list has its own."""
    kind = _plain_type(kind)
    return int(kind.list_size) if types.is_fixed_size_list(kind) else None


def value_bytes(kind: pa.DataType) -> int:
    """Return the bytes of each value in a column of lists; 2 if all lists are null."""
    kind = _plain_type(kind)
    return 2 if types.is_null(kind) else int(kind.value_type.bit_width) // 8


def _plain_type(kind: pa.DataType) -> pa.DataType:
    while isinstance(kind, pa.BaseExtensionType) or types.is_dictionary(kind):
        kind = kind.value_type if types.is_dictionary(kind) else kind.storage_type
    return kind


def plain(column: pa.Array) -> pa.Array:
    """Return a column without extension types and dictionaries."""
    while True:
        if isinstance(column.type, pa.BaseExtensionType):
            column = column.storage
        elif types.is_dictionary(column.type):
            column = column.dictionary_decode()
        else:
            return column


def read_numbers(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return a column of numbers as floats of this type, with its nulls."""
    return plain(column).cast(kind, safe=False)


def read_texts(column: pa.Array) -> tuple[pa.Array, int]:
    """Return a column as strings, empty where missing, and how many were cut to `MAX_TEXT` characters.

    Bytes that are not UTF-8 are replaced.
    """
    if isinstance(column.type, pa.BaseExtensionType) and column.type.extension_name == "arrow.uuid":
        texts = pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())
        return texts.fill_null(""), 0
    column = plain(column)
    if types.is_string_view(column.type) or _is_bytes(column.type):
        column = column.cast(pa.large_binary(), safe=False)
        try:
            column = column.cast(pa.large_string())
        except pa.ArrowInvalid:
            decoded = [None if raw is None else raw.decode("utf-8", "replace") for raw in column.to_pylist()]
            column = pa.array(decoded, pa.large_string())
    elif not types.is_large_string(column.type):
        column = _cast_to_texts(column)
    column = column.fill_null("")
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        raw = column.cast(pa.large_binary()).to_pylist()
        column = pa.array([value.decode("utf-8", "replace") for value in raw], pa.large_string())
    n_cut = 0
    if (pc.max(pc.binary_length(column)).as_py() or 0) > MAX_TEXT:
        n_cut = pc.sum(pc.greater(pc.utf8_length(column), MAX_TEXT)).as_py()
        column = pc.utf8_slice_codeunits(column, 0, MAX_TEXT)
    return column.cast(pa.string()), n_cut


def _cast_to_texts(column: pa.Array) -> pa.Array:
    try:
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        # One by one: a value such as a timestamp beyond the calendar is missing, the others are not.
        return pa.array([_write_text(value) for value in column], pa.string())


def _write_text(value: pa.Scalar) -> str | None:
    try:
        text: str | None = value.cast(pa.string()).as_py()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    return text


def read_uids(column: pa.Array) -> pa.Array:
    """Return a column of uids as 32 lower-case hex digits, null where the value is not a uid."""
    column = plain(column)
    if types.is_null(column.type):
        return column.cast(pa.string())
    if types.is_fixed_size_binary(column.type) and column.type.byte_width == _UID_BYTES:
        return _write_hex(column.cast(pa.binary()))
    if _is_bytes(column.type):
        column = column.cast(pa.large_binary(), safe=False)
        short_N = pc.fill_null(pc.equal(pc.binary_length(column), _UID_BYTES), False)
        if pc.any(short_N).as_py():
            texts = read_uids(read_texts(pc.if_else(short_N, None, column))[0])
            raw = _write_hex(pc.if_else(short_N, column, None).cast(pa.binary()))
            return pc.if_else(short_N, raw, texts)
    texts = read_texts(column)[0]
    uids = pc.if_else(pc.match_substring_regex(texts, f"^(?:{UID_PATTERN})$"), texts, None)
    if (pc.max(pc.binary_length(uids)).as_py() or 0) > 2 * _UID_BYTES:
        uids = pc.replace_substring(uids, "-", "")
    return pc.ascii_lower(uids)


def _write_hex(column: pa.Array) -> pa.Array:
    """Return binary values of 16 bytes as 32 hex digits."""
    known_N = column.is_valid()
    digits = b"".join(column.drop_null().to_pylist()).hex().encode()
    bounds = np.arange(0, len(digits) + 1, 2 * _UID_BYTES, dtype=np.int32)
    texts = pa.Array.from_buffers(
        pa.string(), len(bounds) - 1, [None, pa.py_buffer(bounds), pa.py_buffer(digits)]
    )
    row_N = pc.subtract(pc.cumulative_sum(known_N.cast(pa.int64())), 1)
    return texts.take(pc.if_else(known_N, row_N, None))
