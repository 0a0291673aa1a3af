"""Photos and tars for the embedding benchmarks: random crops of a folder's photos, with captions.

Shared by `benchmarks.embed` and `benchmarks.decode_remote`. Reads JPEG files; writes tars.
"""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from d2prune.inputs.tar.write import END_OF_ARCHIVE, member_header, padding

WORDS = (
    "a photo of the old red garden with yellow flowers beside dunes under storm clouds at dawn in green"
).split()


def crop_photos(folder: Path, count: int, seed: int = 0, shorter: int | None = None) -> list[bytes]:
    """Return JPEGs of random crops of the photos in a folder.

    Args:
        folder: holds the photos, `*.jpg` or `*.jpeg`.
        count: number of crops.
        seed: seed of the crops.
        shorter: pixels of the shorter side; by default crops have about 500 x 400 pixels.
    """
    photos = [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.jp*g"))]
    rng = np.random.default_rng(seed)
    crops = []
    for i in range(count):
        photo = photos[i % len(photos)]
        width = int(rng.integers(400, 600))
        height = int(width * rng.uniform(0.6, 1.0))
        if shorter is not None:
            width, height = width * shorter // height, shorter
        scale = rng.uniform(1, min(photo.width / width, photo.height / height))
        wide, high = int(width * scale), int(height * scale)
        left, top = rng.integers(0, photo.width - wide + 1), rng.integers(0, photo.height - high + 1)
        box = (left, top, left + wide, top + high)
        sink = io.BytesIO()
        photo.resize((width, height), Image.Resampling.LANCZOS, box).save(sink, "JPEG", quality=90)
        crops.append(sink.getvalue())
    return crops


def caption(i: int) -> str:
    """Return a caption of ten random words; `i` is the seed."""
    return " ".join(np.random.default_rng(i).choice(WORDS, 10))


def write_pool(folder: Path, images: list[bytes], shards: int, per_shard: int) -> None:
    """Write tars of the images, repeated as often as needed."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        with open(folder / f"{shard:05d}.tar", "wb") as tar:
            for i in range(per_shard):
                number = shard * per_shard + i
                for kind, data in (("jpg", images[number % len(images)]), ("txt", caption(number).encode())):
                    tar.write(member_header(f"{number:08d}.{kind}", len(data)) + data + padding(len(data)))
            tar.write(END_OF_ARCHIVE)


def write_sparse_tar(path: Path, images: list[bytes], samples: int, size: int, inside: bool) -> None:
    """Write a tar in which every sample has a large member, nearly all zeros that take no disk.

    Args:
        path: of the tar.
        images: JPEGs, used in turn.
        samples: number of samples.
        size: bytes of the large member.
        inside: whether the large member is the image itself, with zeros appended; otherwise it is
            an additional `.npy` member.
    """
    with open(path, "wb") as tar:
        for i in range(samples):
            large = f"{i:08d}.{'jpg' if inside else 'npy'}"
            members = {large: b"", f"{i:08d}.jpg": images[i % len(images)], f"{i:08d}.txt": b"a photo"}
            for name, data in members.items():
                length = size if name == large else len(data)
                tar.write(member_header(name, length) + data)
                tar.seek(length - len(data) + len(padding(length)), os.SEEK_CUR)
        tar.write(END_OF_ARCHIVE)
