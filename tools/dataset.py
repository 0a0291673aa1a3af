"""The clip art in memory: decoded, hashed, grouped, and split into pool and training set.

Reads the Debian packages below a root folder; writes nothing. Invariant: the same packages and seed
give the same split to the script that writes the pool and to the one that trains the model.
"""

import logging
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from tools.clipart import Picture, decode, extra_pictures, open_clip_art
from tools.groups import content_groups, difference_hash, near_copies, pool_and_training

__all__ = ["MAX_SIZE", "POOL_SIZE", "SEED", "Decoded", "Pictures", "load", "on_white"]

POOL_SIZE = 1500
SEED = 20231011
MAX_SIZE = 128

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decoded:
    """One picture's pixels.

    Attributes:
        pixels: uint8 [height, width, 4], RGBA.
        hash: uint8 [16], from :func:`tools.groups.difference_hash`.
    """

    pixels: np.ndarray
    hash: np.ndarray


@dataclass(frozen=True)
class Pictures:
    """Pictures, their pixels and their content groups, in one order.

    Attributes:
        pictures: N records.
        decoded: N decoded pictures.
        groups: int64 [N], the content group of each; never shared by pool and training set.
    """

    pictures: list[Picture]
    decoded: list[Decoded]
    groups: np.ndarray

    def take(self, rows: np.ndarray) -> "Pictures":
        """The pictures at `rows`, int64 [M]."""
        return Pictures(
            [self.pictures[row] for row in rows], [self.decoded[row] for row in rows], self.groups[rows]
        )


def load(
    root: Path, size: int, with_extra: bool = True, seed: int = SEED, pool_size: int = POOL_SIZE
) -> tuple[Pictures, Pictures]:
    """Read, decode and split everything.

    Args:
        root: where the Debian packages are unpacked; "/" if installed.
        size: the longer side of the decoded pictures, at most; up to MAX_SIZE.
        with_extra: whether to read the sources other than Open Clip Art, which only teach.
        seed: of the split.
        pool_size: pictures of the pool.

    Returns:
        The pool and the training set.

    Raises:
        FileNotFoundError: no clip art below `root`.
    """
    art, extra = open_clip_art(root), extra_pictures(root) if with_extra else []
    if not art:
        raise FileNotFoundError(
            f"no usr/share/openclipart below {root}: install openclipart-png and openclipart-svg"
        )
    found = _decode_all([*art, *extra], size)
    n_art = sum(row < len(art) for row in found)
    rows = sorted(found)
    pictures = [(art + extra)[row] for row in rows]
    decoded = [found[row] for row in rows]
    hashes = np.stack([one.hash for one in decoded])
    art_groups = content_groups(pictures[:n_art], hashes[:n_art])
    pool, training = pool_and_training(pictures[:n_art], hashes[:n_art], art_groups, pool_size, seed)
    # Extra pictures are a group each: the training loss already knows equal captions.
    everything = Pictures(pictures, decoded, np.concatenate([art_groups, np.arange(n_art, len(pictures))]))
    copies = near_copies(hashes[n_art:], hashes[pool])[:, 0] + n_art
    usable = np.setdiff1d(np.arange(n_art, len(pictures)), copies)
    _log.info(
        "%d pictures decode; pool %d, training %d + %d", len(rows), len(pool), len(training), len(usable)
    )
    return everything.take(pool), everything.take(np.concatenate([training, usable]))


def on_white(decoded: Decoded) -> Image.Image:
    """The picture centred on a white square, of which CLIP's centre crop cuts nothing off."""
    rgba = Image.fromarray(decoded.pixels, "RGBA")
    side = max(rgba.size)
    image = Image.new("RGB", (side, side), "white")
    image.paste(rgba, ((side - rgba.width) // 2, (side - rgba.height) // 2), rgba)
    return image


def _decode_all(pictures: list[Picture], size: int) -> dict[int, Decoded]:
    """Decode what decodes; keys are rows of `pictures`."""
    with ProcessPoolExecutor(os.cpu_count()) as executor:
        results = executor.map(partial(_decode_one, size=size), pictures, chunksize=64)
        return {row: one for row, one in enumerate(results) if one is not None}


def _decode_one(picture: Picture, size: int) -> "Decoded | None":
    # The hash is that of one fixed size, so that the split is the same for every `size`.
    image = decode(picture, MAX_SIZE)
    if image is None:
        return None
    small = image.convert("RGBa")
    small.thumbnail((size, size), Image.Resampling.LANCZOS)
    return Decoded(np.asarray(small.convert("RGBA")), difference_hash(image))
