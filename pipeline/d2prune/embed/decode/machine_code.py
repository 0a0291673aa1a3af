"""Build and compile the machine code of `kernel.py`: LLVM IR, built with llvmlite for this CPU.

Each `_build_*` function states the arguments of the function that it builds: addresses, and strides
in bytes. The code reads and writes what its arguments say, unchecked.
"""

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llvmlite import binding, ir  # type: ignore[import-untyped]

PIXEL = 4
"""Bytes of a pixel in the source: red, green, blue and any byte."""

COLUMNS = 32
"""Bytes of a row that are summed together: strides are multiples of it."""

_PRECISION_BITS = 22
_I8, _I32, _I64, _F64 = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.DoubleType()
_POINTER = _I8.as_pointer()
# Rows that are resized together: they share the loads of weights, and their sums do not wait for one another.
_ROWS = 4

Value = Any


class Code(NamedTuple):
    """The compiled functions; see the functions that build them."""

    weigh: Callable[..., None]
    resize_rows: Callable[..., None]
    resize_columns: Callable[..., None]


@functools.cache
def compile_code() -> Code:
    """Build and compile the three functions; they stay valid as long as the process."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    module = ir.Module("resize")
    module.triple = binding.get_process_triple()
    for build in (_build_weigh, _build_resize_rows, _build_resize_columns):
        build(module)
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    target = binding.Target.from_triple(module.triple).create_target_machine(
        cpu=binding.get_host_cpu_name(), features=binding.get_host_cpu_features().flatten(), opt=3, jit=True
    )
    engine = binding.create_mcjit_compiler(parsed, target)
    engine.finalize_object()
    _ENGINES.append(engine)
    integer, number = ctypes.c_int64, ctypes.c_double

    def find(name: str, *kinds: type) -> Callable[..., None]:
        return ctypes.CFUNCTYPE(None, *kinds)(engine.get_function_address(name))

    return Code(
        find("weigh", *[integer] * 3, *[number] * 3, *[integer] * 6),
        find("resize_rows", *[integer] * 10),
        find("resize_columns", *[integer] * 9),
    )


# An engine that is collected frees its code.
_ENGINES: list[Any] = []


def _start_function(
    module: ir.Module, name: str, kinds: Sequence[ir.Type]
) -> tuple[ir.IRBuilder, list[Value]]:
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
    return ir.IRBuilder(function.append_basic_block()), list(function.args)


def _loop(
    b: ir.IRBuilder,
    start: Value,
    stop: Value,
    body: Callable[[Value, list[Value]], Sequence[Value]],
    initial: Sequence[Value] = (),
    step: int = 1,
) -> list[Value]:
    """Build `for i in range(start, stop, step): values = body(i, values)`; return the last i and values."""
    before = b.block
    head, inside, after = (b.append_basic_block() for _ in range(3))
    b.branch(head)
    b.position_at_end(head)
    phis = [b.phi(value.type) for value in (start, *initial)]
    for phi, value in zip(phis, (start, *initial), strict=True):
        phi.add_incoming(value, before)
    b.cbranch(b.icmp_signed("<", phis[0], stop), inside, after)
    b.position_at_end(inside)
    values = body(phis[0], phis[1:])
    for phi, value in zip(phis, (b.add(phis[0], _I64(step)), *values), strict=True):
        phi.add_incoming(value, b.block)
    b.branch(head)
    b.position_at_end(after)
    return phis


def _at(b: ir.IRBuilder, base: Value, index: Value, kind: ir.Type, size: int = 1) -> Value:
    """Return the address `base + size * index` as a pointer to `kind`."""
    return b.bitcast(b.gep(base, [b.mul(index, _I64(size))]), kind.as_pointer())


def _splat(kind: ir.Type, value: Any, count: int) -> Value:
    return ir.Constant(ir.VectorType(kind, count), [value] * count)


def _clip(b: ir.IRBuilder, sums: Value, count: int) -> Value:
    """Shift sums back and clip them to bytes."""
    shifted = b.ashr(sums, _splat(_I32, _PRECISION_BITS, count))
    low, high = _splat(_I32, 0, count), _splat(_I32, 255, count)
    shifted = b.select(b.icmp_signed(">", shifted, low), shifted, low)
    shifted = b.select(b.icmp_signed("<", shifted, high), shifted, high)
    return b.trunc(shifted, ir.VectorType(_I8, count))


def _build_weigh(module: ir.Module) -> None:
    """Weights as by Pillow's `precompute_coeffs` and `normalize_coeffs_8bpc`: the same operations in order.

    weigh(inputs, first, count, scale, support, 1 / stretch, bilinear, starts, counts, weights, taps, scratch)
    """
    kinds = [_I64] * 3 + [_F64] * 3 + [_I64] + [_POINTER] * 3 + [_I64, _POINTER]
    b, arguments = _start_function(module, "weigh", kinds)
    inputs, first, count, scale, support, shrink, bilinear, starts, counts, weights, taps, scratch = arguments
    bilinear = b.trunc(bilinear, ir.IntType(1))

    def number(value: float) -> Value:
        return ir.Constant(_F64, value)

    def filter_(x: Value) -> Value:
        x = b.select(b.fcmp_ordered("<", x, number(0)), b.fsub(number(0), x), x)
        near = b.fsub(b.fmul(number(1.5), x), number(2.5))
        near = b.fadd(b.fmul(b.fmul(near, x), x), number(1))
        far = b.fadd(b.fmul(b.fsub(x, number(5)), x), number(8))
        far = b.fmul(b.fsub(b.fmul(far, x), number(4)), number(-0.5))
        inside = b.fcmp_ordered("<", x, number(1))
        outside = b.select(b.or_(bilinear, b.fcmp_ordered(">=", x, number(2))), number(0), far)
        return b.select(inside, b.select(bilinear, b.fsub(number(1), x), near), outside)

    def one_output(i: Value, _: list[Value]) -> Sequence[Value]:
        center = b.fmul(b.fadd(b.sitofp(b.add(first, i), _F64), number(0.5)), scale)
        low = b.fptosi(b.fadd(b.fsub(center, support), number(0.5)), _I64)
        low = b.select(b.icmp_signed("<", low, _I64(0)), _I64(0), low)
        high = b.fptosi(b.fadd(b.fadd(center, support), number(0.5)), _I64)
        high = b.select(b.icmp_signed(">", high, inputs), inputs, high)
        length = b.sub(high, low)

        def weigh_input(t: Value, values: list[Value]) -> Sequence[Value]:
            distance = b.fadd(b.fsub(b.sitofp(b.add(t, low), _F64), center), number(0.5))
            weight = filter_(b.fmul(distance, shrink))
            b.store(weight, _at(b, scratch, t, _F64, 8))
            return [b.fadd(values[0], weight)]

        _, total = _loop(b, _I64(0), length, weigh_input, [number(0)])
        total = b.select(b.fcmp_unordered("!=", total, number(0)), total, number(1))
        mine = b.gep(weights, [b.mul(b.mul(i, taps), _I64(4))])

        def round_weight(t: Value, _: list[Value]) -> Sequence[Value]:
            weight = b.fdiv(b.load(_at(b, scratch, t, _F64, 8)), total)
            half = b.select(b.fcmp_ordered("<", weight, number(0)), number(-0.5), number(0.5))
            scaled = b.fadd(half, b.fmul(weight, number(1 << _PRECISION_BITS)))
            b.store(b.fptosi(scaled, _I32), _at(b, mine, t, _I32, 4))
            return []

        _loop(b, _I64(0), length, round_weight)
        b.store(low, _at(b, starts, i, _I64, 8))
        b.store(length, _at(b, counts, i, _I64, 8))
        return []

    _loop(b, _I64(0), count, one_output)
    b.ret_void()


def _build_resize_rows(module: ir.Module) -> None:
    """Each output pixel of a row is a sum over two pixels at a time, RGBX RGBX, in eight lanes.

    resize_rows(source, source stride, rows, starts, weights, taps, pairs, outputs, result, result stride)
    """
    kinds = [_POINTER, _I64, _I64, _POINTER, _POINTER, _I64, _I64, _I64, _POINTER, _I64]
    b, arguments = _start_function(module, "resize_rows", kinds)
    source, source_stride, n_rows, starts, weights, taps, pairs, outputs, result, result_stride = arguments
    bytes_8, lanes = ir.VectorType(_I8, 8), ir.VectorType(_I32, 8)
    undefined = ir.Constant(lanes, ir.Undefined)

    def resize_rows(y: Value, together: int) -> Sequence[Value]:
        rows = [b.add(y, _I64(r)) for r in range(together)]
        lines = [b.gep(source, [b.mul(row, source_stride)]) for row in rows]
        results = [b.gep(result, [b.mul(row, result_stride)]) for row in rows]

        def one_output(x: Value, _: list[Value]) -> Sequence[Value]:
            start = b.mul(b.load(_at(b, starts, x, _I64, 8)), _I64(PIXEL))
            pixels = [b.gep(line, [start]) for line in lines]
            mine = b.gep(weights, [b.mul(b.mul(x, taps), _I64(4))])

            def add_pair(pair: Value, sums: list[Value]) -> Sequence[Value]:
                two = b.load(_at(b, mine, pair, ir.VectorType(_I32, 2), 8), align=4)
                both = ir.Constant(lanes, [0] * 4 + [1] * 4)
                weight = b.shuffle_vector(two, ir.Constant(two.type, ir.Undefined), both)
                loaded = [b.load(_at(b, line, pair, bytes_8, 8), align=1) for line in pixels]
                return [
                    b.add(total, b.mul(b.zext(found, lanes), weight))
                    for total, found in zip(sums, loaded, strict=True)
                ]

            half = ir.Constant(lanes, [1 << (_PRECISION_BITS - 1)] * 4 + [0] * 4)
            _, *sums = _loop(b, _I64(0), pairs, add_pair, [half] * together)
            four = ir.VectorType(_I32, 4)
            for line, total in zip(results, sums, strict=True):
                even = b.shuffle_vector(total, undefined, ir.Constant(four, [0, 1, 2, 3]))
                odd = b.shuffle_vector(total, undefined, ir.Constant(four, [4, 5, 6, 7]))
                # The fourth byte is overwritten by the next pixel.
                pixel = b.bitcast(_clip(b, b.add(even, odd), 4), _I32)
                b.store(pixel, _at(b, line, x, _I32, 3), align=1)
            return []

        _loop(b, _I64(0), outputs, one_output)
        return []

    # The last whole group ends at or before the number of rows.
    whole = b.sub(n_rows, _I64(_ROWS - 1))
    rest, *_ = _loop(b, _I64(0), whole, lambda y, _: resize_rows(y, _ROWS), step=_ROWS)
    _loop(b, rest, n_rows, lambda y, _: resize_rows(y, 1))
    b.ret_void()


def _build_resize_columns(module: ir.Module) -> None:
    """Each output row is a sum of input rows, as many bytes at a time as vector registers hold.

    resize_columns(source, source stride, starts, counts, weights, taps, outputs, result, result stride)
    """
    kinds = [_POINTER, _I64, *[_POINTER] * 3, _I64, _I64, _POINTER, _I64]
    b, arguments = _start_function(module, "resize_columns", kinds)
    source, source_stride, starts, counts, weights, taps, outputs, result, stride = arguments
    found, lanes = ir.VectorType(_I8, COLUMNS), ir.VectorType(_I32, COLUMNS)
    undefined = ir.Constant(ir.VectorType(_I32, 1), ir.Undefined)

    def one_output(y: Value, _: list[Value]) -> Sequence[Value]:
        lines = b.gep(source, [b.mul(b.load(_at(b, starts, y, _I64, 8)), source_stride)])
        mine = b.gep(weights, [b.mul(b.mul(y, taps), _I64(4))])
        count = b.load(_at(b, counts, y, _I64, 8))
        line = b.gep(result, [b.mul(y, stride)])

        def some_columns(x: Value, _: list[Value]) -> Sequence[Value]:
            def add_row(t: Value, sums: list[Value]) -> Sequence[Value]:
                weight = b.insert_element(undefined, b.load(_at(b, mine, t, _I32, 4)), _I32(0))
                weight = b.shuffle_vector(weight, undefined, ir.Constant(lanes, [0] * COLUMNS))
                row = b.gep(lines, [b.add(b.mul(t, source_stride), x)])
                loaded = b.load(_at(b, row, _I64(0), found), align=1)
                return [b.add(sums[0], b.mul(b.zext(loaded, lanes), weight))]

            half = _splat(_I32, 1 << (_PRECISION_BITS - 1), COLUMNS)
            _, total = _loop(b, _I64(0), count, add_row, [half])
            b.store(_clip(b, total, COLUMNS), _at(b, line, x, found), align=1)
            return []

        _loop(b, _I64(0), stride, some_columns, step=COLUMNS)
        return []

    _loop(b, _I64(0), outputs, one_output)
    b.ret_void()
