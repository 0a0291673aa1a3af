"""Synthetic images, and tars of them."""

import io
import tarfile

import numpy as np
from PIL import Image


def make_image(seed, width=40, height=30, mode="RGB"):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def noise_image(seed, width=40, height=30, mode="RGB"):
    """Return a smooth image with noise, whose pixels all differ from their neighbours."""
    noise = np.random.default_rng(seed).normal(0, 30, (height, width, 3))
    pixels = np.asarray(make_image(seed, width, height)) + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)


def encode_image(image, format="PNG", **options):
    sink = io.BytesIO()
    image.save(sink, format, **options)
    return sink.getvalue()


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, payload in members:
            info = tarfile.TarInfo(name)
            info.size = len(payload)
            tar.addfile(info, io.BytesIO(payload))
    return str(path)
