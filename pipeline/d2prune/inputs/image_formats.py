"""Which image formats are decoded, and the name of the format of bytes that are not.

Pillow knows some forty formats. Those that the web serves are decoded; every other decoder would be
code that hostile bytes reach, and some start other programs (docs/security.md). Naming a format runs
no decoder: it compares the first bytes.
"""

import struct

from PIL import Image

# Loads all plugins now, not at the first image, where threads would race.
Image.init()

FORMATS = tuple(name for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF") if name in Image.OPEN)
"""Formats that are decoded, by Pillow's names. Older Pillows lack AVIF."""

_SNIFFED_BYTES = 16
_TGA = struct.Struct("<BBB5xHHHHB")

# What crawlers store as images, and Pillow does not name.
_OTHERS = (
    ("SVG", (b"<svg", b"<?xml")),
    ("HTML", (b"<!doctype", b"<html", b"<head", b"<script")),
    ("JPEG XL", (b"\xff\x0a", b"\0\0\0\x0cJXL ")),
    ("PDF", (b"%PDF",)),
    ("QOI", (b"qoif",)),
    ("gzip", (b"\x1f\x8b",)),
    ("zip", (b"PK\x03\x04",)),
    ("WebM", (b"\x1aE\xdf\xa3",)),
)
_BRANDS = {b"avif": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF"}


def name_format(data: bytes) -> str | None:
    """Return the name of a format that is not decoded, such as `JPEG2000`; None if it is not recognised."""
    prefix = data[:_SNIFFED_BYTES]
    if prefix[4:8] == b"ftyp":
        return _BRANDS.get(prefix[8:12], "MP4")
    text = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for name, starts in _OTHERS:
        if text.startswith(starts) or prefix.startswith(starts):
            return name
    if _is_tga(data):
        return "TGA"
    for name, (_, accept) in Image.OPEN.items():
        if accept is not None and name not in FORMATS:
            try:
                if accept(prefix) is True:
                    return str(name)
            except (SyntaxError, IndexError, TypeError, struct.error):
                # What Pillow itself expects from these functions.
                continue
    return None


def _is_tga(data: bytes) -> bool:
    """Return whether bytes begin with a plausible header of TGA, which has no magic number.

    Uncompressed ones begin like a CUR, whose bytes at the place of the depth differ.
    """
    if len(data) <= _TGA.size:
        return False
    _, has_map, kind, _, _, width, height, depth = _TGA.unpack_from(data)
    # Kinds 1 and 9 have a colour map, the others none.
    known = (has_map, kind) in ((1, 1), (1, 9), (0, 2), (0, 3), (0, 10), (0, 11))
    return known and width * height > 0 and depth in (8, 16, 24, 32)
