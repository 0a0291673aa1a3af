"""Arrays whose headers are not those of a matrix of floats, with what the error says."""

import io
import struct

import numpy as np


def npy_of(array, **options) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array, **options)
    return sink.getvalue()


def with_header(text: str, version: int = 1, data: bytes = b"") -> bytes:
    """An array file with this header, whatever it says."""
    raw = text.encode()
    size = struct.pack("<H" if version == 1 else "<I", len(raw))
    return b"\x93NUMPY" + bytes([version, 0]) + size + raw + data


def describe(descr="'<f4'", order="False", shape="(2, 3)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


FLOATS = bytes(24)
HOSTILE_HEADERS = {
    "object": (npy_of(np.array([[1, "a"]], object), allow_pickle=True), "pickled objects"),
    "object-descr": (with_header(describe("'|O'")), "pickled objects"),
    "integers": (npy_of(np.ones((2, 3), int)), "expected floats"),
    "bools": (npy_of(np.ones((2, 3), bool)), "expected floats"),
    "complex": (npy_of(np.ones((2, 3), complex)), "expected floats"),
    "strings": (npy_of(np.array([["a"]])), "expected floats"),
    "times": (npy_of(np.zeros((1, 1), "M8[s]")), "expected floats"),
    "longdouble": (npy_of(np.ones((2, 3), np.longdouble)), "expected floats"),
    "structured": (npy_of(np.zeros((2, 3), "u8,u8")), "expected floats"),
    "subarray": (with_header(describe("('<f4', (3,))", shape="(2,)"), data=FLOATS), "expected floats"),
    "bfloat16": (with_header(describe("'|V2'"), data=FLOATS[:12]), "expected floats"),
    "scalar": (npy_of(np.float32(1)), "expected floats"),
    "vector": (npy_of(np.ones(3)), "expected floats"),
    "cube": (npy_of(np.ones((2, 2, 2))), "expected floats"),
    "no-columns": (npy_of(np.ones((3, 0))), "expected floats"),
    "fortran": (npy_of(np.asfortranarray(np.ones((4, 3)))), "Fortran"),
    "version-3": (with_header(describe(), 3, FLOATS), "array format 3.0"),
    "version-9": (with_header(describe(), 9, FLOATS), "array format 9.0"),
    "longer": (with_header(describe(shape="(3, 3)"), data=FLOATS), "damaged or truncated"),
    "shorter": (with_header(describe(shape="(1, 3)"), data=FLOATS), "damaged or truncated"),
    "negative": (with_header(describe(shape="(-2, -3)"), data=FLOATS), "expected floats"),
    "negative-rows": (with_header(describe(shape="(-2, 3)"), data=FLOATS), "expected floats"),
    "huge": (with_header(describe(shape="(10**18, 3)"), data=FLOATS), "not an array"),
    "huge-rows": (with_header(describe(shape=f"({10**18}, 3)"), data=FLOATS), "damaged or truncated"),
    "huge-columns": (with_header(describe(shape=f"(2, {10**18})"), data=FLOATS), "expected at most 16384"),
    "text-shape": (with_header(describe(shape="'23'"), data=FLOATS), "not an array"),
    "float-shape": (with_header(describe(shape="(2.0, 3)"), data=FLOATS), "not an array"),
    "no-shape": (with_header("{'descr': '<f4', 'fortran_order': False}\n", data=FLOATS), "not an array"),
    "unhashable": (with_header("{[]: 1}\n"), "not an array"),
    "expression": (with_header("__import__('os').abort()\n"), "not an array"),
    "nested": (with_header("(" * 5000 + ")" * 5000), "not an array"),
    "long": (with_header(" " * 60_000), "not an array"),
    "long-2": (b"\x93NUMPY\x02\0\xff\xff\xff\xff{", "not an array"),
    "nul": (with_header("\0" * 60), "not an array"),
    "not-ascii": (with_header(describe("'é'")), "not an array"),
    "unknown-type": (with_header(describe("'<z9'")), "not an array"),
    "number-type": (with_header(describe("7")), "not an array"),
    "magic-only": (b"\x93NUMPY", "not an array"),
    "empty": (b"", "not an array"),
}
"""Name -> (bytes, part of the message)."""
