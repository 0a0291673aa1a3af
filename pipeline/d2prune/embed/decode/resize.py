"""Resize and crop an RGB image to the uint8 pixels that a model takes, before normalisation.

Pixels are those of open_clip's evaluation preprocessing (torchvision's resize and crop of Pillow
images), bit for bit, computed by `kernel.py`. Decode processes then need neither torch nor
torchvision, and a pixel value is sent as one byte instead of four. `ClipEncoder` compares the two
whenever it loads a model.
"""

import functools
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from d2prune.embed.decode import kernel

_BAND_BYTES = 1 << 20

ResizeMode = Literal["shortest", "longest", "squash"]


class Pixels(NamedTuple):
    """A decoded image.

    Attributes:
        source: uint8 [`kernel.source_bytes`], which begins with RGBX pixels.
        width: in pixels.
        height: in pixels.
    """

    source: npt.NDArray[np.uint8]
    width: int
    height: int

    @classmethod
    def of(cls, image: Image.Image) -> "Pixels":
        """Copy the pixels of an RGB image, in bands of rows, so that a large one exists twice at most."""
        width, height = image.size
        source = np.empty(kernel.source_bytes(width, height), np.uint8)
        rows = max(1, _BAND_BYTES // (4 * width))
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            band = image if bottom - top == height else image.crop((0, top, width, bottom))
            stored = np.frombuffer(band.tobytes("raw", "RGBX"), np.uint8)
            source[4 * width * top : 4 * width * bottom] = stored
        return cls(source, width, height)


class Span(NamedTuple):
    """Along one side: how many pixels of the resized image are kept, the first of them, and where it goes."""

    length: int
    first: int
    target: int


@dataclass(frozen=True, slots=True)
class Preprocess:
    """The preprocessing of a model.

    Attributes:
        height: of the result, in pixels.
        width: of the result, in pixels.
        mode: `shortest`: resize the shorter side and crop the centre; `longest`: resize the longer
            side and pad; `squash`: resize both sides, ignoring the aspect ratio (SigLIP).
        bilinear: use the bilinear filter instead of bicubic.
        fill: value of the padding of `longest`.
    """

    height: int
    width: int
    mode: ResizeMode = "shortest"
    bilinear: bool = False
    fill: int = 0

    @property
    def n_bytes(self) -> int:
        """Size of the result in bytes."""
        return 3 * self.height * self.width

    def __call__(self, pixels: Pixels) -> npt.NDArray[np.uint8]:
        """Resize and crop.

        Args:
            pixels: at least one pixel each way.

        Returns:
            uint8 [H, W, 3].

        Raises:
            ValueError: the resized image would be empty.
        """
        into = np.empty((self.height, 3 * self.width), np.uint8)
        self.write(pixels, into)
        return into.reshape(self.height, self.width, 3)

    def write(self, pixels: Pixels, into: npt.NDArray[np.uint8]) -> None:
        """Resize and crop into uint8 [H, 3 * W]; see `__call__`."""
        size = (pixels.width, pixels.height)
        resized = self.resized_size(*size)
        if min(resized) < 1:
            raise ValueError("height and width must be > 0")
        across, down = self.spans(*resized)
        if (across.length, down.length) != (self.width, self.height):
            into[:] = self.padding
        box = (across.first, down.first, across.length, down.length)
        order = resizes_columns_first(size, resized)
        found = kernel.resize(pixels.source, size, resized, box, self.uses_bilinear, order)
        rows = into[down.target : down.target + down.length]
        rows[:, 3 * across.target : 3 * (across.target + across.length)] = found

    def resized_size(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) after the resize and before the crop, rounded as by open_clip."""
        if self.mode == "squash":
            return self.width, self.height
        if self.mode == "shortest" and self.height == self.width:
            if width <= height:
                return self.width, int(self.width * height / width)
            return int(self.height * width / height), self.height
        ratios = height / self.height, width / self.width
        # open_clip computes longest * max + (1 - longest) * min, which is one of the two for 0 and 1.
        ratio = max(ratios) if self.mode == "longest" else min(ratios)
        return round(width / ratio), round(height / ratio)

    @property
    def uses_bilinear(self) -> bool:
        """Whether open_clip resizes with the bilinear filter."""
        # It ignores the configured interpolation for `shortest` with a target that is not square.
        return self.bilinear and not (self.mode == "shortest" and self.height != self.width)

    @property
    def padding(self) -> int:
        """Value of the padding where the resized image is smaller than the result."""
        return self.fill if self.mode == "longest" else 0

    def spans(self, width: int, height: int) -> tuple[Span, Span]:
        """Return which part of a resized image is kept, across and down: its centre."""
        return _center(width, self.width), _center(height, self.height)


def resizes_columns_first(size: tuple[int, int], resized: tuple[int, int]) -> bool:
    """Return whether this version of Pillow resizes columns before rows.

    Args:
        size: width and height of the image.
        resized: after the resize.
    """
    (width, height), (to_width, to_height) = size, resized
    rule = _pillow_rule()
    if rule == "never" or to_height >= height:
        return False
    if rule == "very tall":
        return height > 100 * width
    return height - to_height > 2 * (width - to_width)


@functools.cache
def _pillow_rule() -> Literal["never", "very tall", "much shorter"]:
    """Find out by which rule this Pillow orders its passes: 12.3 was the first with one, 13.0 has another."""
    rule: Literal["never", "very tall", "much shorter"] = "never"
    for size, resized in (((1, 120), (2, 7)), ((9, 40), (6, 7))):
        noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        image = Image.fromarray(noise)
        found = image.resize(resized, Image.Resampling.BICUBIC).tobytes()
        pixels, box = Pixels.of(image), (0, 0, *resized)
        if kernel.resize(pixels.source, size, resized, box, False, vertical_first=True).tobytes() == found:
            rule = "very tall" if rule == "never" else "much shorter"
    return rule


def _center(resized: int, target: int) -> Span:
    if resized < target:
        return Span(resized, 0, (target - resized) // 2)
    return Span(target, round((resized - target) / 2), 0)
