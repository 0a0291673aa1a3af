"""Resize and crop an RGB image to the uint8 pixels that a model takes, before normalisation.

`exact` gives the pixels of open_clip's evaluation preprocessing (torchvision's resize and crop of
Pillow images), computed with Pillow alone. Decode processes then need neither torch nor torchvision
and take 25 MB each instead of 365, and a pixel value is sent as one byte instead of four.
`ClipEncoder` compares the two whenever it loads a model.

`fast` differs in three ways: a JPEG is decoded at the smallest scale of its DCT (1/2, 1/4, 1/8) that
leaves at least twice the resized size (with less to average, embeddings move three times as far);
only the region that is kept is resized; and images are reduced with the Hamming filter, as wide as
bilinear and nearly as sharp as bicubic. docs/results/embedding.md states how far embeddings move.
"""

from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageOps

ResizeMode = Literal["shortest", "longest", "squash"]
Method = Literal["exact", "fast"]

_DRAFT_SCALE = 2


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
        method: see the module docstring.
    """

    height: int
    width: int
    mode: ResizeMode = "shortest"
    bilinear: bool = False
    fill: int = 0
    method: Method = "exact"

    @property
    def n_bytes(self) -> int:
        """Size of the result in bytes."""
        return 3 * self.height * self.width

    def __call__(self, image: Image.Image) -> Image.Image:
        """Resize and crop.

        Args:
            image: RGB, at least one pixel each way; with `fast`, after `draft`.

        Returns:
            RGB of exactly (width, height): its `tobytes()` are the pixels [H, W, 3].
        """
        if self.method == "fast":
            image = self._resize_fast(image)
        else:
            size = self.resized_size(*image.size)
            image = image if size == image.size else image.resize(size, self._select_filter())
        return self._crop_or_pad(image) if image.size != (self.width, self.height) else image

    def draft(self, image: Image.Image) -> None:
        """With `fast`, make a JPEG that is opened but not loaded decode at a reduced scale."""
        if self.method == "fast":
            width, height = self.resized_size(*image.size)
            image.draft("RGB", (_DRAFT_SCALE * width, _DRAFT_SCALE * height))

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

    def _select_filter(self) -> Image.Resampling:
        # open_clip ignores the configured interpolation for `shortest` with a target that is not square.
        bilinear = self.bilinear and not (self.mode == "shortest" and self.height != self.width)
        return Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC

    def _resize_fast(self, image: Image.Image) -> Image.Image:
        width, height = self.resized_size(*image.size)
        shrinks = image.width >= width and image.height >= height
        filter_ = Image.Resampling.HAMMING if shrinks else self._select_filter()
        if self.mode != "shortest" or width < self.width or height < self.height:
            return image.resize((width, height), filter_)
        across, down = image.width / width, image.height / height
        left, top = round((width - self.width) / 2), round((height - self.height) / 2)
        box = (left * across, top * down, (left + self.width) * across, (top + self.height) * down)
        return image.resize((self.width, self.height), filter_, box)

    def _crop_or_pad(self, image: Image.Image) -> Image.Image:
        short_x, short_y = max(self.width - image.width, 0), max(self.height - image.height, 0)
        if short_x or short_y:
            border = (short_x // 2, short_y // 2, (short_x + 1) // 2, (short_y + 1) // 2)
            fill = self.fill if self.mode == "longest" else 0
            image = ImageOps.expand(image, border, (fill, fill, fill))
        left, top = round((image.width - self.width) / 2), round((image.height - self.height) / 2)
        return image.crop((left, top, left + self.width, top + self.height))
