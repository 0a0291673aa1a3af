"""Atomic operations on integer arrays and a prefetch hint, which numba does not offer on the CPU.

The atomics let several threads settle one graph through one array of values. On x86-64 the load and
the store compile to plain moves (the orderings only bind the compiler); on ARM they become the
acquire and release instructions needed.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def _pointer(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Address of `array[index]`, array 1-d."""
    array_type, array, index = signature.args[0], args[0], args[1]
    view = context.make_array(array_type)(context, builder, array)
    index = context.cast(builder, index, signature.args[1], types.intp)
    return cgutils.get_item_pointer(context, builder, array_type, view, [index], wraparound=False)


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of `array[index]`; changes nothing, and an index out of range is harmless."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.bitcast(_pointer(context, builder, signature, args), ir.IntType(8).as_pointer())
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, i32, i32, i32])
        hint = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        read, keep, data = (ir.Constant(i32, value) for value in (0, 3, 1))
        builder.call(hint, [pointer, read, keep, data])
        return context.get_dummy_value()

    return types.void(array, index), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load(typing_context: Any, array: Any, index: Any) -> Any:
    """`array[index]`, acquire: what the writer did before its release store of the value read is visible."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(
            _pointer(context, builder, signature, args), "acquire", array.dtype.bitwidth // 8
        )

    return array.dtype(array, index), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """`array[index] = value`, release."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = context.cast(builder, args[2], signature.args[2], array.dtype)
        builder.store_atomic(
            value, _pointer(context, builder, signature, args), "release", array.dtype.bitwidth // 8
        )
        return context.get_dummy_value()

    return types.void(array, index, value), codegen


@intrinsic  # type: ignore[untyped-decorator]
def subtract(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """`array[index] -= value` on int64 as one step; returns the value before."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = context.cast(builder, args[2], signature.args[2], types.int64)
        return builder.atomic_rmw("sub", _pointer(context, builder, signature, args), value, "acq_rel")

    return types.int64(array, index, value), codegen
