"""What a decode process did before: Pillow decodes each image, resizes all of it, and crops.

In a separate module, since decode processes import it.
"""

from typing import Any

import numpy as np
from PIL import Image

from d2prune.embed.decode import decoder as decoder_module
from d2prune.embed.decode.decoder import Decoder
from d2prune.embed.decode.resize import Preprocess


class PillowDecoder(Decoder):
    """A `Decoder` whose pixels Pillow makes."""

    def setup(self) -> None:
        """Replace what decodes and resizes in this process."""
        super().setup()
        decoder_module._load = lambda image, data: image.convert("RGB")  # type: ignore[assignment]
        Preprocess.write = write_by_pillow  # type: ignore[method-assign]


def write_by_pillow(preprocess: Preprocess, image: Any, into: Any) -> None:
    """Write the pixels of the mode `shortest`."""
    size = preprocess.resized_size(*image.size)
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - preprocess.width) / 2), round((size[1] - preprocess.height) / 2)
    image = image.crop((left, top, left + preprocess.width, top + preprocess.height))
    into[:] = np.frombuffer(image.tobytes(), np.uint8).reshape(into.shape)
