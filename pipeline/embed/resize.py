"""An RGB picture -> the uint8 pixels that a model sees, before normalisation.

`exact` gives the pixels of open_clip's evaluation preprocessing (torchvision's resize and crop on Pillow images),
computed here with Pillow alone: decode processes then need neither torch nor torchvision, which is 25 MB each instead
of 365, and what travels is a byte per value instead of four. `ClipEncoder` compares the two whenever it loads a model.

`fast` differs in two ways, both before Pillow's own antialiased resize: a JPEG is decoded at the smallest of its DCT's
scales (1/2, 1/4, 1/8) that leaves twice the pixels needed along each side, and any picture is first reduced by whole
factors (box filter) to no less than three times what is needed. How far embeddings move is told in docs/results.md.
"""

from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageOps

ResizeMode = Literal["shortest", "longest", "squash"]
Method = Literal["exact", "fast"]

_FAST_DRAFT = 2
_FAST_GAP = 3.0


@dataclass(frozen=True, slots=True)
class Preprocess:
    """What a model wants its pictures to be made into.

    Attributes:
        height, width: of the pixels, in pixels.
        mode: `shortest`: the shorter side is resized, the centre cut out; `longest`: the longer one, and the rest
            filled; `squash`: both, without regard to the shape (SigLIP).
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
        image = self._resized(image)
        return self._cut(image) if image.size != (self.width, self.height) else image

    def draft(self, image: Image.Image) -> None:
        """Asks a JPEG that was opened and not yet loaded for fewer pixels, if `method` allows it."""
        if self.method == "fast":
            width, height = self.resized_size(*image.size)
            image.draft("RGB", (_FAST_DRAFT * width, _FAST_DRAFT * height))

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

    def _resized(self, image: Image.Image) -> Image.Image:
        size = self.resized_size(*image.size)
        if size == image.size:
            return image
        # open_clip passes its interpolation on except where the shorter side of a target that is no square decides.
        bilinear = self.bilinear and not (self.mode == "shortest" and self.height != self.width)
        filter_ = Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC
        return image.resize(size, filter_, reducing_gap=_FAST_GAP if self.method == "fast" else None)

    def _cut(self, image: Image.Image) -> Image.Image:
        short_x, short_y = max(self.width - image.width, 0), max(self.height - image.height, 0)
        if short_x or short_y:
            border = (short_x // 2, short_y // 2, (short_x + 1) // 2, (short_y + 1) // 2)
            fill = self.fill if self.mode == "longest" else 0
            image = ImageOps.expand(image, border, (fill, fill, fill))
        left, top = round((image.width - self.width) / 2), round((image.height - self.height) / 2)
        return image.crop((left, top, left + self.width, top + self.height))
