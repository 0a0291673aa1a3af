"""`embed.resize: device`: resize whole images on the model's device, within 2 of 255 of Pillow's pixels.

Resizing is linear along rows and along columns: each is one batched matrix product of the images,
padded to a common size, with a matrix of weights per image, in float32. Results are rounded to bytes
after each, in Pillow's order. In half precision one byte in 13 would differ from Pillow's, and
embedding cosines would fall to 0.9999 in the median; float32 costs 0.4 GFLOP an image.

Invariant: an image that already has the resized size is unchanged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from d2prune.embed.decode.resize import Preprocess, Span, resizes_columns_first

WHOLE_BYTES = 1 << 20
"""Larger images are resized by the decode process. DataComp's largest, 512 x 512 pixels, take 0.8 MB."""

# Images that are resized together: padded, at most 0.8 GB, as no side is longer than 1,024 (decoder.py).
_TOGETHER = 64


class Source(NamedTuple):
    """The location of an image: its row in the lane, its first byte there, its size in pixels."""

    slot: int
    start: int
    width: int
    height: int


@dataclass(frozen=True)
class WholeBatch:
    """Images of N different sizes, back to back.

    Attributes:
        pixels: uint8, the bytes of all images, on the CPU (in pinned memory for a GPU).
        sizes_N2: width and height of each.
    """

    pixels: Any
    sizes_N2: npt.NDArray[np.int64]


class DeviceResizer:
    """Resizes batches of whole images for one model; see the module docstring."""

    def __init__(self, preprocess: Preprocess, device: str, copy_stream: Any = None) -> None:
        """Prepare.

        Args:
            preprocess: of the model.
            device: `cpu` or `cuda`.
            copy_stream: of a GPU, for copies to it.
        """
        import torch

        self._torch, self._preprocess, self._device = torch, preprocess, device
        self._copy_stream = copy_stream
        self._reused = torch.empty(0, dtype=torch.uint8)

    def gather(self, pixels: npt.NDArray[np.uint8], sources: Sequence[Source]) -> WholeBatch:
        """Copy images out of their slots [slots, bytes]; on a CPU valid until the next call."""
        sizes = np.array([(source.width, source.height) for source in sources], np.int64).reshape(-1, 2)
        ends = np.cumsum(3 * sizes.prod(axis=1)).tolist()
        batch = self._allocate(ends[-1])
        into = batch.numpy()
        for source, start, end in zip(sources, [0, *ends], ends, strict=False):
            into[start:end] = pixels[source.slot, source.start : source.start + end - start]
        return WholeBatch(batch, sizes)

    def _allocate(self, size: int) -> Any:
        if self._device == "cuda":
            # torch keeps pinned memory for reuse once the copy from it is complete.
            return self._torch.empty(size, dtype=self._torch.uint8, pin_memory=True)
        # New memory would cost more in page faults than the copy into it.
        if len(self._reused) < size:
            self._reused = self._torch.empty(size, dtype=self._torch.uint8)
        return self._reused[:size]

    def resize(self, batch: WholeBatch) -> Any:
        """Return the pixels of the model, uint8 [N, H, W, 3] on the device."""
        torch = self._torch
        with torch.inference_mode():
            pixels = self._copy(batch.pixels)
            starts_N = np.cumsum(3 * batch.sizes_N2.prod(axis=1)) - 3 * batch.sizes_N2.prod(axis=1)
            ours = self._preprocess
            shape = (len(starts_N), ours.height, ours.width, 3)
            resized = torch.empty(shape, dtype=torch.uint8, device=self._device)
            orders = [
                resizes_columns_first(size, ours.resized_size(*size)) for size in batch.sizes_N2.tolist()
            ]
            for columns_first in (False, True):
                rows = np.flatnonzero(np.array(orders) == columns_first)
                for at in range(0, len(rows), _TOGETHER):
                    group = rows[at : at + _TOGETHER]
                    found = self._resize_group(
                        pixels, starts_N[group].tolist(), batch.sizes_N2[group], columns_first
                    )
                    resized[torch.from_numpy(group).to(self._device)] = found
            return resized

    def _copy(self, pixels: Any) -> Any:
        if self._copy_stream is None:
            return pixels
        torch = self._torch
        with torch.cuda.stream(self._copy_stream):
            copied = pixels.to(self._device, non_blocking=True)
        stream = torch.cuda.current_stream()
        stream.wait_stream(self._copy_stream)
        copied.record_stream(stream)
        return copied

    def _resize_group(
        self, pixels: Any, starts: Sequence[int], sizes_N2: npt.NDArray[np.int64], columns_first: bool
    ) -> Any:
        torch, ours = self._torch, self._preprocess
        n, (wide, high) = len(sizes_N2), sizes_N2.max(axis=0).tolist()
        padded = torch.zeros((n, high, 3, wide), device=self._device)
        for image, start, (width, height) in zip(padded, starts, sizes_N2.tolist(), strict=True):
            stored = pixels[start : start + 3 * width * height].view(height, width, 3)
            image[:height, :, :width] = stored.permute(0, 2, 1)
        resized = [ours.resized_size(*size) for size in sizes_N2.tolist()]
        spans = [ours.spans(*size) for size in resized]
        across = self._weights(
            sizes_N2[:, 0], [size[0] for size in resized], [s[0] for s in spans], ours.width
        )
        down = self._weights(
            sizes_N2[:, 1], [size[1] for size in resized], [s[1] for s in spans], ours.height
        )
        across = across.transpose(1, 2)
        if columns_first:
            once = _round(torch.bmm(down, padded.view(n, high, 3 * wide)))
            both = _round(torch.bmm(once.view(n, 3 * ours.height, wide), across))
        else:
            once = _round(torch.bmm(padded.view(n, 3 * high, wide), across))
            both = _round(torch.bmm(down, once.view(n, high, 3 * ours.width)))
        both = both.view(n, ours.height, 3, ours.width).to(torch.uint8).permute(0, 1, 3, 2)
        if ours.padding:
            both = torch.where(self._is_padding(spans), ours.padding, both)
        return both.contiguous()

    def _weights(
        self, sizes: npt.NDArray[np.int64], resized: Sequence[int], spans: Sequence[Span], outputs: int
    ) -> Any:
        """Return the weight of each input in each output, [N, outputs, largest size]; zero in the padding."""
        torch = self._torch

        def column(values: Any, dtype: Any = torch.float64) -> Any:
            return torch.tensor(np.asarray(values), dtype=dtype).view(-1, 1)

        scale = column(sizes) / column(resized)
        stretch = scale.clamp(min=1)
        support = (1 if self._preprocess.uses_bilinear else 2) * stretch
        position = torch.arange(outputs)[None] - column([span.target for span in spans])
        center = (position + column([span.first for span in spans]) + 0.5) * scale
        low = (center - support + 0.5).floor().clamp(min=0)
        high = (center + support + 0.5).floor().minimum(column(sizes))
        # No input for what lies beyond the resized image.
        high = torch.where((position >= 0) & (position < column([span.length for span in spans])), high, low)
        # Float32 suffices for distances, though not for the positions of centres.
        whole = center.floor()
        low, high, part, stretch, whole = (
            each.to(self._device, torch.float32)[..., None]
            for each in (low, high, center - whole, stretch, whole)
        )
        inputs = torch.arange(int(sizes.max()), dtype=torch.float32, device=self._device)
        weights = self._filter((inputs - whole - part + 0.5) / stretch)
        weights = torch.where((inputs >= low) & (inputs < high), weights, 0)
        total = weights.sum(dim=2, keepdim=True)
        return weights / torch.where(total == 0, 1, total)

    def _filter(self, x: Any) -> Any:
        torch, x = self._torch, x.abs()
        if self._preprocess.uses_bilinear:
            return (1 - x).clamp(min=0)
        near, far = (1.5 * x - 2.5) * x * x + 1, (((x - 5) * x + 8) * x - 4) * -0.5
        return torch.where(x < 1, near, torch.where(x < 2, far, 0))

    def _is_padding(self, spans: Sequence[tuple[Span, Span]]) -> Any:
        """Return [N, H, W, 1], true beyond the resized image."""
        inside = np.zeros((len(spans), self._preprocess.height, self._preprocess.width, 1), bool)
        for image, (across, down) in zip(inside, spans, strict=True):
            image[down.target : down.target + down.length, across.target : across.target + across.length] = (
                True
            )
        return self._torch.from_numpy(~inside).to(self._device)


def _round(values: Any) -> Any:
    return (values + 0.5).floor_().clamp_(0, 255)
