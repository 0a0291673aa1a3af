"""Find members that a training run must not meet: executable ones, and those WebDataset fails to decode.

WebDataset decodes every member of a sample by its extension. If one member fails, open_clip drops
the whole sample. Nothing is unpickled or executed here: each format is parsed by the function that
WebDataset uses, with its unsafe parts off, and compressed data is bounded.
"""

import gzip
import importlib
import io
import json
import struct
import zipfile
from collections.abc import Callable

import numpy as np
from PIL import Image

from d2prune.inputs.tar.reader import TarSample
from d2prune.output.executable import IMAGES, PROGRAMS, is_executable

LOADED = ("jpg", "jpeg", "png", "webp", "txt", "json")
"""Members that open_clip's data loader uses, or that every pool has; `loader.py` decodes them."""

_MAX_EXPANDED_BYTES = 256 * 2**20
_CHUNK_MAGIC = b"~TenBin~"
_FORMATS_THAT_EXECUTE = ("EPS", "IPTC")
"""Formats of Pillow that start Ghostscript, or open an image inside the image by its content."""


def find_member_faults(sample: TarSample, keep_executable: bool) -> list[str]:
    """Check the members that open_clip's data loader is not given (see `loader.py`).

    Args:
        sample: with all its members.
        keep_executable: whether the output was written with executable members unchanged.

    Returns:
        One fault per member.
    """
    faults = []
    for extension in sample.extensions:
        # A member too large to load has no payload here; its name decides.
        if is_executable(extension, sample.members.get(extension, b"")):
            if not keep_executable:
                faults.append(f"{sample.key}: {extension}: a data loader would execute this member")
        elif extension not in LOADED and extension in sample.members:
            try:
                _decode(extension, sample.members[extension])
            except Exception as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                faults.append(
                    f"{sample.key}: {extension}: WebDataset fails to decode this member, and trainers drop "
                    f"the sample ({reason})"
                )
    return faults


def refuse_programs(name: str, data: bytes) -> None:
    """Raise an error if an image may be a PostScript program, which Pillow would pass to Ghostscript.

    A handler for `webdataset.decode`, which tries the next one after None.

    Raises:
        ValueError: it is.
    """
    if name.rpartition(".")[2] in IMAGES and data.startswith(PROGRAMS):
        raise ValueError("found PostScript or IPTC; expected an image")


def _decode(extension: str, data: bytes) -> None:
    """Decode a member as WebDataset would.

    Raises:
        Exception: WebDataset would raise an error, too.
    """
    parts = extension.split(".")
    while parts and parts[-1] == "gz":
        with gzip.open(io.BytesIO(data)) as stream:
            data = stream.read(_MAX_EXPANDED_BYTES + 1)
        _limit_size(len(data))
        parts.pop()
    kind = parts[-1] if parts else ""
    if kind in DECODERS:
        DECODERS[kind](data)
    elif kind in IMAGES:
        _decode_image(data)


def _decode_text(data: bytes) -> object:
    return data.decode()


def _decode_npy(data: bytes) -> object:
    return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)


def _decode_npz(data: bytes) -> object:
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _limit_size(sum(entry.file_size for entry in archive.infolist()))
    return dict(np.load(io.BytesIO(data), allow_pickle=False))


def _decode_msgpack(data: bytes) -> object:
    return importlib.import_module("msgpack").unpackb(data)


def _decode_cbor(data: bytes) -> object:
    return importlib.import_module("cbor").loads(data)


def _decode_tenbin(data: bytes) -> object:
    from webdataset import tenbin

    # A negative length would make tenbin read the same chunk for ever.
    position = 0
    while position < len(data):
        magic, size = struct.unpack_from("<8sq", data, position)
        if magic != _CHUNK_MAGIC or size < 0:
            raise ValueError(f"found {magic!r} and {size} bytes at byte {position}; expected a chunk")
        position += 16 + (size + 63) // 64 * 64
    return tenbin.decode_buffer(data)


def _decode_image(data: bytes) -> object:
    Image.init()
    formats = [name for name in Image.OPEN if name not in _FORMATS_THAT_EXECUTE]
    with Image.open(io.BytesIO(data), formats=formats) as image:
        return image.convert("RGB").size


DECODERS: dict[str, Callable[[bytes], object]] = {
    **dict.fromkeys(("txt", "text", "transcript"), _decode_text),
    **dict.fromkeys(("cls", "cls2", "index", "inx", "id"), int),
    **dict.fromkeys(("json", "jsn"), json.loads),
    **dict.fromkeys(("ten", "tb"), _decode_tenbin),
    **dict.fromkeys(("mp", "msg"), _decode_msgpack),
    "npy": _decode_npy,
    "npz": _decode_npz,
    "cbor": _decode_cbor,
}
"""Last part of an extension -> decoder that raises where WebDataset's does and executes nothing."""


def _limit_size(size: int) -> None:
    if size > _MAX_EXPANDED_BYTES:
        raise ValueError(f"expands to more than {_MAX_EXPANDED_BYTES} bytes; not checked")
