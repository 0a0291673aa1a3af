"""Small pictures for the page: a sample's bytes in its tar -> a WebP data URI.

Nothing here may fail a report: a pool that moved, a picture that does not decode or is too large
gives an empty string.
"""

import base64
import io
import logging
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import ExifTags, Image

from d2prune import store
from d2prune.errors import D2PruneError
from d2prune.inputs.tar.reader import parse_sample

log = logging.getLogger(__name__)

_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_MAX_SAMPLE_BYTES = 64 * 2**20
# After JPEG's cheap scaling while decoding; RGBA of this size takes 100 MB in each thread.
_MAX_DECODED_PIXELS = 25_000_000
_SIDE = 120
_THREADS = 4
# Exif orientation -> what rights it, applied to the small picture.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Source:
    """Where one sample lies: `size` bytes at `offset` of the tar at `url`."""

    url: str
    offset: int
    size: int


def thumbnails(sources: Sequence[Source], max_pixels: int, budget: int) -> list[str]:
    """Data URIs in the order of `sources`, empty where there is no picture.

    Args:
        sources: where the samples lie.
        max_pixels: larger pictures are not decoded.
        budget: characters that all data URIs together may take; what comes after is left out.
    """
    with ThreadPoolExecutor(_THREADS) as threads:
        found = list(threads.map(lambda source: _thumbnail(source, max_pixels), sources))
    spent = 0
    for index, uri in enumerate(found):
        spent += len(uri)
        if spent > budget:
            found[index] = ""
    if failed := sum(not uri for uri in found):
        log.warning("report: %d of %d pictures left out: unreadable, or the page is full", failed, len(found))
    return found


def _thumbnail(source: Source, max_pixels: int) -> str:
    return data_uri(image_bytes(source), max_pixels)


def image_bytes(source: Source) -> bytes:
    """The image file of a sample as it lies in its tar; empty where it cannot be had."""
    if not 0 < source.size <= _MAX_SAMPLE_BYTES:
        return b""
    try:
        members = parse_sample(store.read_range(source.url, source.offset, source.size))
    except (D2PruneError, OSError, ValueError) as error:
        log.debug("no picture: %s", error)
        return b""
    return next((bytes(member.payload) for member in members if member.extension.lower() in _EXTENSIONS), b"")


def data_uri(payload: bytes, max_pixels: int) -> str:
    """`small_webp` as a data URI; empty where there is none."""
    small = small_webp(payload, max_pixels)
    return "data:image/webp;base64," + base64.b64encode(small).decode() if small else ""


def small_webp(payload: bytes, max_pixels: int, side: int = _SIDE) -> bytes:
    """An image file as a WebP of at most `side` pixels a side; empty where it cannot or must not be decoded."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures; the limit that counts is ours.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(payload), formats=_FORMATS) as image:
                if image.width * image.height > max_pixels:
                    return b""
                image.draft("RGB", (side * 2, side * 2))
                if image.width * image.height > _MAX_DECODED_PIXELS:
                    return b""
                turn = image.getexif().get(ExifTags.Base.Orientation, 1)
                small = image.convert("RGBA")
        small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
        if turn in _TURNS:
            small = small.transpose(_TURNS[turn])
        flat = Image.new("RGB", small.size, "white")
        flat.paste(small, mask=small.getchannel("A"))
        sink = io.BytesIO()
        flat.save(sink, "WEBP", quality=72, method=4)
    except Exception as error:  # Decoders raise whatever they like on hostile bytes.
        log.debug("no picture: %s: %s", type(error).__name__, error)
        return b""
    return sink.getvalue()
