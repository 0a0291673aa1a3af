"""Parse tar headers, PAX records and member names. Pure functions of bytes.

Formats read: POSIX ustar (name, prefix), GNU (base-256 numbers, long names in the preceding
member), old V7 tars, and PAX records (`path`, `size`). Sources: POSIX.1-2017 `pax`, "ustar
Interchange Format" and "pax Header Block"; GNU tar manual, "Basic Tar Format".
"""

import re
from typing import NamedTuple
from zlib import adler32

BLOCK = 512
MAGIC = b"ustar"
MAGIC_OFFSET = 257
ZERO_BLOCK = bytes(BLOCK)
# Two zero blocks.
_END_MARK = 2 * BLOCK
# GNU tar, bsdtar and Python's tarfile (img2dataset, WebDataset) pad a tar to a multiple of this.
_RECORD = 20 * BLOCK
_LARGEST_RECORD = 1 << 20

LONG_NAME = b"L"
LONG_LINK = b"K"
PAX_NEXT = b"x"
PAX_GLOBAL = b"g"
SOLARIS_PAX = b"X"
# Hard link, symbolic link, devices, directory, fifo: no payload follows, whatever the size field holds.
NO_PAYLOAD = frozenset(b"123456")
REGULAR = frozenset(b"0\0" + b"7")

# The checksum is the sum of the block's bytes, with its own field read as eight spaces. The low half
# of Adler-32 is 1 + that sum, modulo 65521, and zlib computes it ten times as fast as `sum`, which
# took half the time of walking a tar.
_FIELD_AS_SPACES = 8 * ord(" ")
_ADLER = 65521

_METADATA = re.compile(r"__[^/]*__($|/)")


class Header(NamedTuple):
    """One valid header block. `size` counts the payload's bytes, without padding; `name` is raw bytes."""

    name: bytes
    size: int
    kind: int


def number(field: bytes) -> int:
    """Read a numeric header field: octal digits, or GNU base-256 where the first byte is 0x80 or 0xff.

    Raises:
        ValueError: the field is neither.
    """
    try:
        return int(field.rstrip(b"\0 ") or b"0", 8)
    except ValueError:
        pass
    if field and field[0] in (0x80, 0xFF):
        value = int.from_bytes(field[1:], "big")
        return value if field[0] == 0x80 else value - (1 << (8 * (len(field) - 1)))
    text = field.split(b"\0", 1)[0].strip(b" ")
    return int(text, 8) if text else 0


def parse_header(block: bytes) -> Header | None:
    """Parse one 512-byte block that is not all zeros.

    Returns:
        The header, or None if the checksum or a number is wrong.
    """
    try:
        checksum = number(block[148:156])
        if (checksum - _FIELD_AS_SPACES + 1) % _ADLER != adler32(block[156:], adler32(block[:148])) & 0xFFFF:
            if checksum != _signed_sum(block):
                return None
        size = number(block[124:136])
    except ValueError:
        return None
    if size < 0:
        return None
    kind = block[156]
    name = block[:100].split(b"\0", 1)[0]
    # GNU tar's magic is "ustar  \0"; it uses the prefix bytes for times.
    if block[345] and block[MAGIC_OFFSET : MAGIC_OFFSET + 6] == b"ustar\0":
        name = block[345:500].split(b"\0", 1)[0] + b"/" + name
    if kind == 0 and name.endswith(b"/"):
        kind = ord("5")  # V7 tars have no directory type
    if kind in NO_PAYLOAD:
        size = 0
    return Header(name, size, kind)


def _signed_sum(block: bytes) -> int:
    # Some old programs sum signed chars.
    rest = block[:148] + block[156:]
    return sum(rest) - 256 * sum(byte > 127 for byte in rest) + _FIELD_AS_SPACES


def parse_pax(payload: bytes) -> dict[bytes, bytes]:
    """Parse PAX records, each `<length> <key>=<value>` and a newline.

    Raises:
        ValueError: a record has the wrong length or no '='.
    """
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(payload):
        space = payload.find(b" ", position, position + 20)
        length = int(payload[position:space]) if space > position else 0
        end = position + length
        if length <= space + 1 - position or end > len(payload) or payload[end - 1] != 0x0A:
            raise ValueError(f"PAX record at byte {position} is malformed")
        key, equals, value = payload[space + 1 : end - 1].partition(b"=")
        if not equals:
            raise ValueError(f"PAX record at byte {position} has no '='")
        records[key] = value
        position = end
    return records


def is_end_of_archive(start: int, size: int) -> bool:
    """Return whether zeros after the last member, to the end of the file, are such as tar programs write.

    These are up to two zero blocks (Go, Rust and d2prune write no more), and then zeros to the end of
    a record. Records have the usual 10,240 bytes if that divides the length of the file, else the
    power of two from 16 KiB to 1 MiB that divides it (`tar -b 32` to `tar -b 2048`). A file of partial
    blocks was truncated inside its padding. A file without members is an archive only in the two
    lengths that tar programs give it, 1,024 and 10,240 bytes.

    Args:
        start: byte after the last member; 0 if there is none.
        size: bytes of the file.
    """
    if start == 0:
        return size in (_END_MARK, _RECORD)
    record = BLOCK
    if size % _RECORD == 0 or size % BLOCK:
        record = _RECORD
    elif size & -size > _RECORD:
        record = min(size & -size, _LARGEST_RECORD)
    return size - start < record + _END_MARK


def decode_name(name: bytes) -> str:
    """Decode a member name as UTF-8, with hex escapes for other bytes so that names stay distinct."""
    return name.decode("utf-8", "backslashreplace")


def split_name(name: str) -> tuple[str, str] | None:
    """Split a member name into (key, lower-case extension) by WebDataset's rule.

    The key is the path up to the first dot of the file name, folders included; the extension is
    everything after that dot.

    Returns:
        None for members that are not part of a sample: names without a dot, hidden files (macOS
        stores `._name.jpg` beside each file), and WebDataset's own metadata (`__name__/...`).
    """
    cut = name.rfind("/") + 1
    dot = name.find(".", cut)
    if dot <= cut:
        return None
    if name.startswith("__") and _METADATA.match(name):
        return None
    return name[:dot], name[dot + 1 :].lower()
