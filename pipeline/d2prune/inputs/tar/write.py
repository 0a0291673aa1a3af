"""Write tar headers that depend on name and size alone, so that equal content gives equal tars.

Mode 0644, owner 0, no user names, a constant time. Names that are not ASCII or exceed 100 bytes,
and sizes of 8 GiB and above, go into a PAX header before the member (POSIX.1-2017 `pax`). Python's
tarfile, GNU tar and WebDataset read both.
"""

from zlib import adler32

from d2prune.inputs.tar.header import BLOCK

MODIFIED = 315_532_800
"""1980-01-01 UTC, a common choice in reproducible archives; some programs warn about 1970."""

END_OF_ARCHIVE = bytes(2 * BLOCK)
"""The two zero blocks that end a tar."""

_MAX_OCTAL_SIZE = 8**11
_PAX_NAME = b"PaxHeader"


def member_header(name: str, size: int) -> bytes:
    """Return the header block(s) of a regular file.

    Args:
        name: path inside the tar; not empty, no NUL.
        size: payload bytes, without padding.

    Returns:
        512 bytes; or a PAX header, its records and the member's header (a multiple of 512 bytes).

    Raises:
        ValueError: the name is empty or contains a NUL, or the size is negative.
    """
    if not name or "\0" in name or size < 0:
        raise ValueError(f"tar member {name!r} of {size} bytes: expected a name without NUL and a size >= 0")
    raw = name.encode("utf-8")
    records = b""
    if len(raw) > 100 or not name.isascii():
        records += _record(b"path", raw)
        raw = name.encode("ascii", "replace")[:100]
    if size >= _MAX_OCTAL_SIZE:
        records += _record(b"size", b"%d" % size)
        size = 0
    if not records:
        return _block(raw, size, b"0")
    return _block(_PAX_NAME, len(records), b"x") + records + padding(len(records)) + _block(raw, size, b"0")


def padding(size: int) -> bytes:
    """Return the zero bytes that pad a payload of `size` bytes to whole blocks."""
    return bytes(-size % BLOCK)


def _block(name: bytes, size: int, kind: bytes) -> bytes:
    head = name.ljust(100, b"\0") + b"0000644\x000000000\x000000000\x00%011o\x00%011o\x00" % (size, MODIFIED)
    tail, tail_sum = _TAILS[kind]
    # All bytes are ASCII, so the sum stays below Adler-32's modulus; see `header.py`.
    checksum = (adler32(head) & 0xFFFF) - 1 + tail_sum
    return head + b"%06o\x00 " % checksum + tail


def _tail(kind: bytes) -> tuple[bytes, int]:
    """Return the bytes after the checksum field, and their sum plus that field as spaces."""
    tail = (kind + bytes(100) + b"ustar\x0000").ljust(BLOCK - 156, b"\0")
    return tail, sum(tail) + 8 * ord(" ")


_TAILS = {kind: _tail(kind) for kind in (b"0", b"x")}


def _record(key: bytes, value: bytes) -> bytes:
    # The length includes its own digits.
    body = len(key) + len(value) + 3
    length = body + len(str(body))
    length = body + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)
