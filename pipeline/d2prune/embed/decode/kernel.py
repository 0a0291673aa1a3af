"""Machine code that resizes images with Pillow's own arithmetic: the same bytes, six times as fast.

Pillow's `Resample.c` sums bytes times integer weights: a weight is a double, rounded to 22 bits
after the binary point; a sum starts at one half, is shifted back and clipped to a byte. Rows and
columns are resized one after the other, with bytes in between. Integer sums do not depend on their
order, so vector instructions give the same bytes, and only the crop needs to be computed.

The code is built as LLVM IR with llvmlite, the backend of numba, and compiled for this CPU by the
first call, in 40 ms. Kernels of numba would cost each decode process 32 MiB more and 0.6 s of CPU
time, and would need a cache that every process finds; docs/results/decoding.md has the figures.

Invariant: bytes equal Pillow's for every size, filter and crop (`tests/embed/decode/test_resize.py`).
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from d2prune.embed.decode.machine_code import COLUMNS, PIXEL, Code, compile_code


def source_bytes(width: int, height: int) -> int:
    """Return the size of a buffer for an image: RGBX pixels, and what vector loads may touch after them."""
    # A load takes two pixels, and weights of zero may reach as far as the widest filter: the whole row.
    return PIXEL * (width * height + 2 * width + 16)


def resize(
    source: npt.NDArray[np.uint8],
    size: tuple[int, int],
    resized: tuple[int, int],
    box: tuple[int, int, int, int],
    bilinear: bool,
    vertical_first: bool = False,
) -> npt.NDArray[np.uint8]:
    """Resize an image and return a box of the result.

    Args:
        source: uint8 [`source_bytes`], which begins with the pixels in the order R, G, B and any byte.
        size: width and height of the image.
        resized: width and height after the resize, positive.
        box: left, top, width and height of the part of the resized image to return, inside it.
        bilinear: use the bilinear filter instead of bicubic.
        vertical_first: resize columns before rows, which rounds differently.

    Returns:
        uint8 [height of the box, 3 * its width], a view of longer rows.
    """
    left, top, width, height = box
    code = compile_code()
    across = _weigh(code, size[0], resized[0], left, width, bilinear)
    down = _weigh(code, size[1], resized[1], top, height, bilinear)
    # A store of the last pixel writes a fourth byte.
    stride = _round_up(3 * width + 1)
    result = np.empty((height, stride), np.uint8)
    if vertical_first:
        first, last = across.inputs
        # Vector loads may touch what follows the last row.
        half_stride, slack = _round_up(PIXEL * (last - first)), 2 * PIXEL * across.weights_NK.shape[1]
        half = np.empty(height * half_stride + slack, np.uint8)
        start = source.ctypes.data + PIXEL * first
        _resize_columns(code, start, PIXEL * size[0], 0, down, half, half_stride)
        _resize_rows(code, half.ctypes.data, half_stride, height, first, across, result)
    else:
        first, last = down.inputs
        half = np.empty((last - first) * stride, np.uint8)
        start = source.ctypes.data + first * PIXEL * size[0]
        _resize_rows(code, start, PIXEL * size[0], last - first, 0, across, half.reshape(-1, stride))
        _resize_columns(code, half.ctypes.data, stride, first, down, result.reshape(-1), stride)
    return result[:, : 3 * width]


def _round_up(columns: int) -> int:
    return -(-columns // COLUMNS) * COLUMNS


class _Weights(NamedTuple):
    """Weights of N outputs, each a sum of up to K inputs.

    Attributes:
        starts_N: int64, the first input of each output.
        counts_N: int64, how many inputs it has.
        weights_NK: int32, zero beyond the count.
    """

    starts_N: npt.NDArray[np.int64]
    counts_N: npt.NDArray[np.int64]
    weights_NK: npt.NDArray[np.int32]

    @property
    def inputs(self) -> tuple[int, int]:
        """The first input of any output, and the end of the last."""
        return int(self.starts_N[0]), int(self.starts_N[-1] + self.counts_N[-1])


def _weigh(code: Code, inputs: int, outputs: int, first: int, count: int, bilinear: bool) -> _Weights:
    scale = inputs / outputs
    stretch = max(scale, 1.0)
    support = (1.0 if bilinear else 2.0) * stretch
    # Pillow's bound of the number of inputs, rounded up to pairs.
    taps = (math.ceil(support) * 2 + 2) // 2 * 2
    starts, counts = np.empty(count, np.int64), np.empty(count, np.int64)
    weights, scratch = np.zeros((count, taps), np.int32), np.empty(taps)
    code.weigh(
        inputs,
        first,
        count,
        scale,
        support,
        1.0 / stretch,
        bilinear,
        starts.ctypes.data,
        counts.ctypes.data,
        weights.ctypes.data,
        taps,
        scratch.ctypes.data,
    )
    return _Weights(starts, counts, weights)


def _resize_rows(
    code: Code,
    source: int,
    source_stride: int,
    n_rows: int,
    first: int,
    weights: _Weights,
    result: npt.NDArray[np.uint8],
) -> None:
    """Resize the rows that begin at address `source`, at pixel `first`, into [n_rows, stride]."""
    code.resize_rows(
        source - PIXEL * first,
        source_stride,
        n_rows,
        weights.starts_N.ctypes.data,
        weights.weights_NK.ctypes.data,
        weights.weights_NK.shape[1],
        -(-int(weights.counts_N.max()) // 2),
        len(weights.starts_N),
        result.ctypes.data,
        result.shape[1],
    )


def _resize_columns(
    code: Code,
    source: int,
    source_stride: int,
    first: int,
    weights: _Weights,
    result: npt.NDArray[np.uint8],
    stride: int,
) -> None:
    """Resize `stride` columns of the rows that begin at address `source`, at row `first`."""
    code.resize_columns(
        source - first * source_stride,
        source_stride,
        weights.starts_N.ctypes.data,
        weights.counts_N.ctypes.data,
        weights.weights_NK.ctypes.data,
        weights.weights_NK.shape[1],
        len(weights.starts_N),
        result.ctypes.data,
        stride,
    )
