"""Walk a tar header by header: yield the regular members that may belong to samples, and the faults.

Content never raises. A `ByteSource` delivers bytes front to back; the caller decides which payloads
are loaded. `reader.py` describes how faults are handled.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple, Protocol

from d2prune.inputs import rejects
from d2prune.inputs.rejects import Reject
from d2prune.inputs.tar.header import (
    BLOCK,
    LONG_LINK,
    LONG_NAME,
    MAGIC,
    MAGIC_OFFSET,
    NO_PAYLOAD,
    PAX_GLOBAL,
    PAX_NEXT,
    REGULAR,
    SOLARIS_PAX,
    ZERO_BLOCK,
    Header,
    decode_name,
    is_end_of_archive,
    parse_header,
    parse_pax,
    split_name,
)

# Longer "long names" are garbage that happens to have a valid checksum.
_MAX_META_BYTES = 1 << 20
_SKIP_CHUNK = 1 << 20
# A whole number of blocks, and small: what follows the zeros is put back.
_ZEROS_CHUNK = 1 << 16
_META = frozenset(LONG_NAME + LONG_LINK + PAX_NEXT + PAX_GLOBAL + SOLARIS_PAX)


class TarMember(NamedTuple):
    """One regular member.

    Attributes:
        name: as in the tar.
        key: of its sample.
        extension: in lower case.
        offset: byte of its first header, long-name and PAX headers included.
        start: byte of its payload.
        end: byte after its padding.
        size: bytes of its payload.
        payload: None if it was not loaded.
        digest: SHA-256 of the payload; empty unless asked for.
    """

    name: str
    key: str
    extension: str
    offset: int
    start: int
    end: int
    size: int
    payload: bytes | None
    digest: bytes


class ByteSource(Protocol):
    """Bytes of a tar, front to back; `position` is the next byte."""

    position: int

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes; fewer only at the end."""
        ...

    def skip(self, count: int) -> int:
        """Skip up to `count` bytes and return how many were skipped; fewer only at the end."""
        ...

    def put_back(self, data: bytes) -> None:
        """Make bytes just taken the next ones again."""
        ...


class StreamSource:
    """Exact reads from a stream that may return fewer bytes than asked for."""

    def __init__(self, stream: IO[bytes], position: int = 0):
        self._stream = stream
        self._back = b""
        self.position = position

    def take(self, count: int) -> bytes:
        """See `ByteSource.take`."""
        if self._back:
            data, self._back = self._back[:count], self._back[count:]
        else:
            data = self._stream.read(count)
        if len(data) < count:
            parts = [data]
            missing = count - len(data)
            while missing and (more := self._stream.read(missing)):
                parts.append(more)
                missing -= len(more)
            data = b"".join(parts)
        self.position += len(data)
        return data

    def skip(self, count: int) -> int:
        """See `ByteSource.skip`."""
        left = count
        while left and (data := self.take(min(left, _SKIP_CHUNK))):
            left -= len(data)
        return count - left

    def put_back(self, data: bytes) -> None:
        """See `ByteSource.put_back`."""
        self._back = data + self._back
        self.position -= len(data)


class ViewSource:
    """Reads from a buffer, where skipping costs nothing."""

    def __init__(self, view: memoryview, position: int = 0):
        self._view = view
        self.position = position

    def take(self, count: int) -> bytes:
        """See `ByteSource.take`."""
        data = bytes(self._view[self.position : self.position + count])
        self.position += len(data)
        return data

    def skip(self, count: int) -> int:
        """See `ByteSource.skip`."""
        count = min(count, len(self._view) - self.position)
        self.position += count
        return count

    def put_back(self, data: bytes) -> None:
        """See `ByteSource.put_back`."""
        self.position -= len(data)


class Walker:
    """Iterates over the `TarMember`s and `Reject`s of a source, in file order.

    Attributes:
        end_mark: whether the file ends in zero blocks; valid once exhausted.
    """

    def __init__(
        self,
        source: ByteSource,
        wants: Callable[[str], bool],
        max_member_bytes: int,
        with_digests: bool = False,
    ):
        """Walk nothing yet.

        Args:
            source: of the tar's bytes.
            wants: whether payloads with this extension are loaded.
            max_member_bytes: larger payloads are never loaded.
            with_digests: hash payloads, also those that are not loaded.
        """
        self._source = source
        self._wants = wants
        self._max_member_bytes = max_member_bytes
        self._with_digests = with_digests
        self._global_pax: dict[bytes, bytes] = {}
        self.end_mark = False

    def __iter__(self) -> Iterator[TarMember | Reject]:
        source = self._source
        start = -1  # of the first meta header before the member it describes
        long_name: bytes | None = None
        pax: dict[bytes, bytes] = {}
        while True:
            at = source.position
            block = source.take(BLOCK)
            if not block:
                if start >= 0:
                    key = _key_of(pax.get(b"path") or long_name)
                    yield Reject(key, rejects.TAR_TRUNCATED, f"the tar ends at byte {at}, before a member")
                return
            if block == ZERO_BLOCK[: len(block)]:
                reject = self._skip_zeros(at, pax.get(b"path") or long_name, start >= 0)
                # What an extended header described is in the zeros.
                start, long_name, pax = -1, None, {}
                if reject is not None:
                    yield reject
                continue
            if len(block) < BLOCK:
                name = pax.get(b"path") or long_name or block[:100].split(b"\0")[0]
                detail = f"the tar ends at byte {source.position}, inside a header"
                yield Reject(_key_of(name), rejects.TAR_TRUNCATED, detail)
                return
            header = parse_header(block)
            if header is None:
                start, long_name, pax = -1, None, {}
                yield self._resume_after(block, at)
                continue
            if header.kind in _META:
                if header.kind != PAX_GLOBAL[0] and start < 0:
                    start = at
                if header.size > _MAX_META_BYTES:
                    source.skip(_padded(header.size))
                    detail = f"extended header of {header.size} bytes at byte {at}"
                    yield Reject("", rejects.TAR_CORRUPT, detail)
                    continue
                payload = source.take(_padded(header.size))
                if len(payload) < header.size:
                    yield Reject("", rejects.TAR_TRUNCATED, f"the tar ends at byte {source.position}")
                    return
                payload = payload[: header.size]
                if header.kind == LONG_NAME[0]:
                    long_name, _, rest = payload.partition(b"\0")
                    if rest or not long_name:
                        yield Reject("", rejects.TAR_CORRUPT, f"zeros in the long name at byte {at}")
                elif header.kind != LONG_LINK[0]:
                    try:
                        (self._global_pax if header.kind == PAX_GLOBAL[0] else pax).update(parse_pax(payload))
                    except ValueError as error:
                        yield Reject("", rejects.TAR_CORRUPT, f"{error} (header at byte {at})")
                continue
            member = self._read_member(header, at if start < 0 else start, long_name, pax)
            start, long_name, pax = -1, None, {}
            if member is not None:
                yield member
                if isinstance(member, Reject):
                    return

    def _read_member(
        self, header: Header, offset: int, long_name: bytes | None, pax: dict[bytes, bytes]
    ) -> TarMember | Reject | None:
        """Read or skip a payload. None for members that are not part of a sample."""
        source = self._source
        if self._global_pax:
            pax = {**self._global_pax, **pax}
        size, regular = header.size, header.kind in REGULAR
        if pax:
            digits = pax.get(b"size", b"")
            if digits.isdigit() and len(digits) < 20 and header.kind not in NO_PAYLOAD:
                size = int(digits)
            regular = regular and not any(record.startswith(b"GNU.sparse.") for record in pax)
        name = decode_name(pax.get(b"path") or long_name or header.name)
        split = split_name(name) if regular else None
        key, extension = split or ("", "")
        start = source.position
        load = split is not None and size <= self._max_member_bytes and self._wants(extension)
        payload = source.take(size) if load else None
        digest = b""
        if payload is not None:
            got = len(payload)
            if self._with_digests:
                digest = hashlib.sha256(payload).digest()
        elif self._with_digests and split is not None:
            got, digest = _skip_and_hash(source, size)
        else:
            got = source.skip(size)
        if got < size:
            detail = f"the tar ends at byte {source.position}, {size - got} bytes before the end of {name}"
            return Reject(key, rejects.TAR_TRUNCATED, detail)
        if size % BLOCK:
            source.take(BLOCK - size % BLOCK)
        if split is None:
            return None
        return TarMember(name, key, extension, offset, start, source.position, size, payload, digest)

    def _skip_zeros(self, at: int, name: bytes | None, is_described: bool) -> Reject | None:
        """Skip the zeros that begin at byte `at`; None if they end the archive as tar programs do.

        Args:
            at: their first byte; at least part of the first block is already taken.
            name: of the member that an extended header before them describes.
            is_described: whether there is such a header.
        """
        source = self._source
        while block := source.take(_ZEROS_CHUNK):
            rest = block.lstrip(b"\0")
            if rest:
                # Headers after an end of archive are as far from each other as blocks.
                source.put_back(block[(len(block) - len(rest)) // BLOCK * BLOCK :])
                break
        else:
            self.end_mark = source.position - at >= BLOCK
            if is_described or not is_end_of_archive(at, source.position):
                detail = f"zeros from byte {at} to the end at byte {source.position}"
                return Reject(_key_of(name), rejects.TAR_ZEROS, detail)
            return None
        resumed = source.position
        block = source.take(BLOCK)
        if len(block) == BLOCK and parse_header(block) is not None:
            source.put_back(block)
            detail = f"zeros from byte {at}; resumed at byte {resumed}"
            return Reject(_key_of(name), rejects.TAR_ZEROS, detail)
        found = self._resume_after(block, resumed)
        return Reject(_key_of(name), rejects.TAR_ZEROS, f"zeros from byte {at}; {found.detail}")

    def _resume_after(self, window: bytes, at: int) -> Reject:
        """Skip to the next valid ustar header; return one reject for all that was skipped."""
        source = self._source
        base, search = at, 1
        gzip = window[:2] == b"\x1f\x8b"
        while True:
            found = window.find(MAGIC, search + MAGIC_OFFSET)
            while found >= 0 and found - MAGIC_OFFSET + BLOCK <= len(window):
                candidate = found - MAGIC_OFFSET
                if parse_header(window[candidate : candidate + BLOCK]) is not None:
                    source.put_back(window[candidate:])
                    detail = f"no valid header at byte {at}; resumed at byte {base + candidate}"
                    return Reject("", rejects.TAR_CORRUPT, detail)
                found = window.find(MAGIC, found + 1)
            more = source.take(_SKIP_CHUNK)
            if not more:
                detail = f"no valid header from byte {at} to the end at byte {source.position}"
                return Reject("", rejects.TAR_CORRUPT, detail + (" (gzip-compressed?)" if gzip else ""))
            keep = max(len(window) - BLOCK, 0)
            base += keep
            search = 1 if keep == 0 and base == at else 0
            window = window[keep:] + more


def _skip_and_hash(source: ByteSource, count: int) -> tuple[int, bytes]:
    """Skip bytes as `ByteSource.skip` does; return how many, and their SHA-256."""
    left, digest = count, hashlib.sha256()
    while left and (data := source.take(min(left, _SKIP_CHUNK))):
        digest.update(data)
        left -= len(data)
    return count - left, digest.digest()


def _key_of(name: bytes | None) -> str:
    split = split_name(decode_name(name)) if name else None
    return split[0] if split else ""


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
