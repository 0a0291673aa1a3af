"""Atomic operations on integer arrays, and a prefetch hint. numba offers neither on the CPU.

With the atomics several threads settle one graph through one array of values. On x86-64 the load
and the store compile to plain moves, since the ordering only restricts the compiler; on ARM they
become acquire and release instructions.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils

from d2prune.compiled.decorator import intrinsic


def _get_item_pointer(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """The address of `array[index]`; the array has one dimension."""
    array_type, array, index = signature.args[0], args[0], args[1]
    view = context.make_array(array_type)(context, builder, array)
    index = context.cast(builder, index, signature.args[1], types.intp)
    return cgutils.get_item_pointer(context, builder, array_type, view, [index], wraparound=False)


@intrinsic
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Prefetch the cache line of `array[index]`. An index out of range is harmless."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _get_item_pointer(context, builder, signature, args)
        pointer = builder.bitcast(pointer, ir.IntType(8).as_pointer())
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, i32, i32, i32])
        hint = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        # For reading, keep in all cache levels, data cache.
        read, locality, data = (ir.Constant(i32, value) for value in (0, 3, 1))
        builder.call(hint, [pointer, read, locality, data])
        return context.get_dummy_value()

    return types.void(array, index), codegen


@intrinsic
def load(typing_context: Any, array: Any, index: Any) -> Any:
    """Return `array[index]`, with acquire ordering.

    What another thread wrote before it stored this value with `store` is visible afterwards.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _get_item_pointer(context, builder, signature, args)
        return builder.load_atomic(pointer, "acquire", array.dtype.bitwidth // 8)

    return array.dtype(array, index), codegen


@intrinsic
def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """Set `array[index] = value`, with release ordering."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = context.cast(builder, args[2], signature.args[2], array.dtype)
        pointer = _get_item_pointer(context, builder, signature, args)
        builder.store_atomic(value, pointer, "release", array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, index, value), codegen


@intrinsic
def subtract(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """Subtract from an int64 `array[index]` in one atomic step; return the value before."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = context.cast(builder, args[2], signature.args[2], types.int64)
        pointer = _get_item_pointer(context, builder, signature, args)
        return builder.atomic_rmw("sub", pointer, value, "acq_rel")

    return types.int64(array, index, value), codegen
