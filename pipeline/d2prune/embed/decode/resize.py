"""An RGB picture -> the uint8 pixels that a model sees, before normalisation.

`exact` gives the pixels of open_clip's evaluation preprocessing (torchvision's resize and crop on
Pillow images), computed here with Pillow alone: decode processes then need neither torch nor
torchvision, which is 25 MB each instead of 365, and what travels is a byte per value instead of
four. `ClipEncoder` compares the two whenever it loads a model.

`fast` differs in three ways: a JPEG is decoded at the smallest of its DCT's scales (1/2, 1/4, 1/8)
that leaves twice what the resize makes of it (with less to average, embeddings move three times as
far), only what is cut out is resized, and pictures are made smaller with Hamming's filter, as wide
as bilinear and nearly as sharp as bicubic. How far embeddings move is told in docs/results.md.
"""

from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageOps

ResizeMode = Literal["shortest", "longest", "squash"]
Method = Literal["exact", "fast"]

_DRAFT = 2


@dataclass(frozen=True, slots=True)
class Preprocess:
    """What a model wants its pictures to be made into.

    Attributes:
        height, width: of the pixels, in pixels.
        mode: `shortest`: the shorter side is resized, the centre cut out; `longest`: the longer
            one, and the rest filled; `squash`: both, without regard to the shape (SigLIP).
        bilinear: instead of bicubic.
        fill: value of what `longest` adds.
        method: see the module's text.
    """

    height: int
    width: int
    mode: ResizeMode = "shortest"
    bilinear: bool = False
    fill: int = 0
    method: Method = "exact"

    @property
    def n_bytes(self) -> int:
        """Size of one picture's pixels."""
        return 3 * self.height * self.width

    def __call__(self, image: Image.Image) -> Image.Image:
        """Resizes and cuts.

        Args:
            image: RGB, at least one pixel each way; with `fast`, as `draft` left it.

        Returns:
            RGB of exactly (width, height): its `tobytes()` are the pixels [H, W, 3].
        """
        if self.method == "fast":
            image = self._fast(image)
        else:
            size = self.resized_size(*image.size)
            image = image if size == image.size else image.resize(size, self._filter())
        return self._cut(image) if image.size != (self.width, self.height) else image

    def draft(self, image: Image.Image) -> None:
        """Asks a JPEG that was opened and not yet loaded for fewer pixels, if `method` allows it."""
        if self.method == "fast":
            width, height = self.resized_size(*image.size)
            image.draft("RGB", (_DRAFT * width, _DRAFT * height))

    def resized_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) after the resize and before the cut, as torchvision and open_clip round it."""
        if self.mode == "squash":
            return self.width, self.height
        if self.mode == "shortest" and self.height == self.width:
            if width <= height:
                return self.width, int(self.width * height / width)
            return int(self.height * width / height), self.height
        ratios = height / self.height, width / self.width
        # In open_clip's words: longest * max + (1 - longest) * min; with 0 and 1 that is one of them.
        ratio = max(ratios) if self.mode == "longest" else min(ratios)
        return round(width / ratio), round(height / ratio)

    def _filter(self) -> Image.Resampling:
        # open_clip passes its interpolation on except where the shorter side of a target that is no
        # square decides.
        bilinear = self.bilinear and not (self.mode == "shortest" and self.height != self.width)
        return Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC

    def _fast(self, image: Image.Image) -> Image.Image:
        width, height = self.resized_size(*image.size)
        shrinks = image.width >= width and image.height >= height
        filter_ = Image.Resampling.HAMMING if shrinks else self._filter()
        if self.mode != "shortest" or width < self.width or height < self.height:
            return image.resize((width, height), filter_)
        across, down = image.width / width, image.height / height
        left, top = round((width - self.width) / 2), round((height - self.height) / 2)
        box = (left * across, top * down, (left + self.width) * across, (top + self.height) * down)
        return image.resize((self.width, self.height), filter_, box)

    def _cut(self, image: Image.Image) -> Image.Image:
        short_x, short_y = max(self.width - image.width, 0), max(self.height - image.height, 0)
        if short_x or short_y:
            border = (short_x // 2, short_y // 2, (short_x + 1) // 2, (short_y + 1) // 2)
            fill = self.fill if self.mode == "longest" else 0
            image = ImageOps.expand(image, border, (fill, fill, fill))
        left, top = round((image.width - self.width) / 2), round((image.height - self.height) / 2)
        return image.crop((left, top, left + self.width, top + self.height))
