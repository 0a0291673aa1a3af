"""Samples -> the bytes of a WebDataset tar, streamed: size and checksum are known at the end without a second look.

Payloads go through untouched. Two kinds of members would make a trainer drop the whole sample in silence, because
WebDataset's decoder raises on them: a `txt` that is not UTF-8 and a `json` that does not parse. The first is written
repaired (as the model saw it) with the original bytes beside it as `txt-original`; the second keeps its bytes under the
extension `json-invalid`, which decoders leave alone.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from pipeline.inputs.tar import RawMember
from pipeline.inputs.tar_header import BLOCK
from pipeline.inputs.tar_write import END_OF_ARCHIVE, member_header

# Stays in the cache until it is hashed and written, and its memory is used again: of 4 MiB every page was made anew.
_FLUSH = 2**20
_ZEROS = bytes(BLOCK)

Payload = bytes | memoryview


def trainable(members: Sequence[RawMember]) -> tuple[list[tuple[str, Payload]], tuple[str, ...]]:
    """What to write of a sample's members, so that WebDataset can decode it.

    Args:
        members: of one sample, in tar order.

    Returns:
        (extension, payload) in tar order, and the names of repairs: `caption_repaired`, `json_set_aside`.
    """
    written: list[tuple[str, Payload]] = []
    repairs: list[str] = []
    for member in members:
        if member.extension == "txt":
            raw = bytes(member.payload)
            try:
                raw.decode()
            except UnicodeDecodeError:
                repairs.append("caption_repaired")
                written.append(("txt", raw.decode(errors="replace").encode()))
                written.append(("txt-original", member.payload))
                continue
        elif member.extension == "json":
            if not _is_json(bytes(member.payload)):
                repairs.append("json_set_aside")
                written.append(("json-invalid", member.payload))
                continue
        written.append((member.extension, member.payload))
    return written, tuple(repairs)


def _is_json(data: bytes) -> bool:
    """Whether `json.loads` takes it, asked the quick way first: bytes are searched for their encoding."""
    for text in (str, bytes):
        try:
            json.loads(data.decode() if text is str else data)
            return True
        except (ValueError, RecursionError):
            continue
    return False


class TarStream:
    """Turns members into tar bytes, in blocks of about 1 MiB; a context manager.

    A block is hashed and given out by two threads of its own while the next one is put together: both leave the
    interpreter free, and each takes as long as reading and parsing the samples.

    Attributes:
        size: bytes given out; the tar's size after `close`.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._hash = hashlib.sha256()
        self._parts: list[Payload] = []
        self._pending = 0
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="d2prune-tar")
        self._under_way: list[Future[object]] = []
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    @property
    def checksum(self) -> str:
        """SHA-256 of the whole tar in hex; valid after `close`."""
        return self._hash.hexdigest()

    def add(self, key: str, members: Sequence[tuple[str, Payload]]) -> None:
        """Append one sample: `members` are (extension, payload), named `key.extension`.

        Raises:
            Whatever `write` raised for an earlier block.
        """
        parts = self._parts
        for extension, payload in members:
            size = len(payload)
            header = member_header(f"{key}.{extension}", size)
            tail = -size % BLOCK
            parts += (header, payload, _ZEROS[:tail])
            self._pending += len(header) + size + tail
        if self._pending >= _FLUSH:
            self._flush()

    def close(self) -> None:
        """Append the end-of-archive mark and wait until all is given out; errors as `add`."""
        self._parts.append(END_OF_ARCHIVE)
        self._flush()
        self._wait()

    def _flush(self) -> None:
        data = b"".join(self._parts)
        self._parts.clear()
        self._pending = 0
        self._wait()
        self.size += len(data)
        self._under_way = [self._threads.submit(self._write, data), self._threads.submit(self._hash.update, data)]

    def _wait(self) -> None:
        for future in self._under_way:
            future.result()
        self._under_way = []
