"""The clip art in memory: decoded, hashed, grouped, and split into pool and training set.

Reads the Debian packages below a root folder; writes nothing. Invariant: for the same packages and
seed, the split is the same in the script that writes the pool and in the one that trains the model.
"""

import logging
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from tools.clipart import ImageRecord, decode, read_extra_images, read_open_clip_art
from tools.groups import content_groups, difference_hash, near_copies, pool_and_training

__all__ = ["MAX_SIZE", "POOL_SIZE", "SEED", "DecodedImage", "ImageSet", "load", "on_white"]

POOL_SIZE = 1500
SEED = 20231011
MAX_SIZE = 128

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecodedImage:
    """The pixels of one image.

    Attributes:
        pixels: uint8 [height, width, 4], RGBA.
        hash: uint8 [16], from :func:`tools.groups.difference_hash`.
    """

    pixels: np.ndarray
    hash: np.ndarray


@dataclass(frozen=True)
class ImageSet:
    """Images with their pixels and content groups, in the same order.

    Attributes:
        records: N images.
        decoded: their pixels.
        groups: int64 [N], the content group of each; pool and training set have none in common.
    """

    records: list[ImageRecord]
    decoded: list[DecodedImage]
    groups: np.ndarray

    def take(self, rows: np.ndarray) -> "ImageSet":
        """Return the images at `rows`, int64 [M]."""
        return ImageSet(
            [self.records[row] for row in rows], [self.decoded[row] for row in rows], self.groups[rows]
        )


def load(
    root: Path, size: int, with_extra: bool = True, seed: int = SEED, pool_size: int = POOL_SIZE
) -> tuple[ImageSet, ImageSet]:
    """Read, decode and split all images.

    Args:
        root: folder with the unpacked Debian packages; "/" if they are installed.
        size: maximum of the longer side of decoded images, up to MAX_SIZE.
        with_extra: whether to read the sources other than Open Clip Art, used for training only.
        seed: of the split.
        pool_size: number of images in the pool.

    Returns:
        The pool and the training set.

    Raises:
        FileNotFoundError: there is no clip art below `root`.
    """
    art, extra = read_open_clip_art(root), read_extra_images(root) if with_extra else []
    if not art:
        raise FileNotFoundError(
            f"{root}: found no usr/share/openclipart; install openclipart-png and openclipart-svg"
        )
    found = _decode_all([*art, *extra], size)
    n_art = sum(row < len(art) for row in found)
    rows = sorted(found)
    records = [(art + extra)[row] for row in rows]
    decoded = [found[row] for row in rows]
    hashes = np.stack([one.hash for one in decoded])
    art_groups = content_groups(records[:n_art], hashes[:n_art])
    pool, training = pool_and_training(records[:n_art], hashes[:n_art], art_groups, pool_size, seed)
    # Each extra image is its own group: the training loss treats equal captions separately.
    everything = ImageSet(records, decoded, np.concatenate([art_groups, np.arange(n_art, len(records))]))
    copies = near_copies(hashes[n_art:], hashes[pool])[:, 0] + n_art
    usable = np.setdiff1d(np.arange(n_art, len(records)), copies)
    _log.info(
        "%d images decoded; pool %d, training %d + %d", len(rows), len(pool), len(training), len(usable)
    )
    return everything.take(pool), everything.take(np.concatenate([training, usable]))


def on_white(decoded: DecodedImage) -> Image.Image:
    """Return the image centred on a white square, so that CLIP's centre crop removes nothing."""
    rgba = Image.fromarray(decoded.pixels, "RGBA")
    side = max(rgba.size)
    image = Image.new("RGB", (side, side), "white")
    image.paste(rgba, ((side - rgba.width) // 2, (side - rgba.height) // 2), rgba)
    return image


def _decode_all(records: list[ImageRecord], size: int) -> dict[int, DecodedImage]:
    """Decode all images that can be decoded; keys are rows of `records`."""
    with ProcessPoolExecutor(os.cpu_count()) as executor:
        results = executor.map(partial(_decode_one, size=size), records, chunksize=64)
        return {row: one for row, one in enumerate(results) if one is not None}


def _decode_one(record: ImageRecord, size: int) -> "DecodedImage | None":
    # The hash is computed at one fixed size, so that the split does not depend on `size`.
    image = decode(record, MAX_SIZE)
    if image is None:
        return None
    small = image.convert("RGBa")
    small.thumbnail((size, size), Image.Resampling.LANCZOS)
    return DecodedImage(np.asarray(small.convert("RGBA")), difference_hash(image))
