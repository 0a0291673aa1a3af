"""Members that a data loader would execute.

WebDataset's default decoders choose by extension: they unpickle `pyd`, `pickle` and `pkl`, and pass
`pth` to `torch.load`, which unpickles too. PyTorch's own decoder does the same for `pt`. Images go
to Pillow, which looks at the content instead of the name: it starts Ghostscript for PostScript,
also for PostScript inside an IPTC file. All of them look inside compressed members: `pyd.gz` is
decompressed, then unpickled. A pickle or a PostScript program in a pool therefore runs on the
machine that trains. See docs/decisions/0008-members-that-execute.md.
"""

import gzip
import io
import zlib
from collections.abc import Container

EXECUTABLE = ("pyd", "pickle", "pkl", "pth", "pt", "eps", "ps")
"""Extensions, as loaders compare them: the part after the last dot, in lower case."""

COMPRESSED = ("gz", "bz2", "xz", "zst", "lz4")
"""Extensions of compressed members. WebDataset 1.x decompresses `gz`; other loaders know the rest."""

PROGRAMS = (b"%!PS", b"\xc5\xd0\xd3\xc6", b"\x1c")
"""First bytes of images that Pillow may pass to Ghostscript: PostScript, EPS with a preview, IPTC."""

# WebDataset's list (`webdataset.autodecode.IMAGE_EXTENSIONS`), which the tests compare.
IMAGES = frozenset(
    "blp bmp dib bufr cur pcx dcx dds ps eps fit fits fli flc ftc ftu gbr gif grib h5 hdf png apng jp2 j2k "
    "jpc jpf jpx j2c icns ico im iim tif tiff jfif jpe jpg jpeg mpg mpeg msp pcd pxr pbm pgm ppm pnm psd bw "
    "rgb rgba sgi ras tga icb vda vst webp wmf emf xbm xpm avif".split()
)
"""Extensions of members that loaders pass to Pillow."""

KEEP_OPTION = "keep_executable_members"
"""Name of the option that keeps such members, in the configuration and in the output manifest."""

_SUFFIX = "-unsafe"
_MAX_LAYERS = 4
"""Layers of `gz` in which an image is looked for. WebDataset decompresses at most two."""


def is_executable(extension: str, payload: bytes | memoryview) -> bool:
    """Return whether a loader would execute a member.

    Args:
        extension: in lower case; may have dots.
        payload: content of the member.
    """
    parts = extension.split(".")
    layers = 0
    while len(parts) > 1 and parts[-1] in COMPRESSED:
        layers += 1
        parts.pop()
    if parts[-1] in EXECUTABLE:
        return True
    if parts[-1] not in IMAGES:
        return False
    return layers > _MAX_LAYERS or _read_start(payload, layers).startswith(PROGRAMS)


def safe_name(extension: str, taken: Container[str]) -> str:
    """Return the extension under which such a member is set aside; see `free_name`."""
    return free_name(extension + _SUFFIX, taken)


def free_name(extension: str, taken: Container[str]) -> str:
    """Return the extension, numbered if the sample has it already.

    A repeated extension would start a new sample, and the members after it would be lost.
    """
    number, name = 1, extension
    while name in taken:
        number += 1
        name = f"{extension}-{number}"
    return name


def _read_start(payload: bytes | memoryview, layers: int) -> bytes:
    """Return the first bytes of a member after decompressing it; empty if it is not gzip."""
    if not layers:
        return bytes(payload[:4])
    stream: io.BytesIO | gzip.GzipFile = io.BytesIO(payload)
    try:
        for _ in range(layers):
            stream = gzip.GzipFile(fileobj=stream, mode="rb")
        return stream.read(4)
    except (OSError, EOFError, zlib.error):
        return b""
