"""Samples -> the bytes of a WebDataset tar, streamed: size and checksum are known at the end without a second look.

Payloads go through untouched. Two kinds of members would make a trainer drop the whole sample in
silence, because WebDataset's decoder raises on them: a `txt` that is not UTF-8 and a `json` that
does not parse. The first is written repaired (as the model saw it) with the original bytes beside
it as `txt-original`; the second keeps its bytes under the extension `json-invalid`, which decoders
leave alone.
"""

import collections
import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from d2prune.inputs.tar.reader import RawMember
from d2prune.inputs.tar.write import END_OF_ARCHIVE, member_header, padding

_AT_ONCE = 3
"""Blocks being hashed and written."""

_ROOM = 2**20
"""Bytes of a block whose memory is used again; larger ones are rare."""

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
            if not is_json(bytes(member.payload)):
                repairs.append("json_set_aside")
                written.append(("json-invalid", member.payload))
                continue
        written.append((member.extension, member.payload))
    return written, tuple(repairs)


_scan_json: Callable[[str, int], tuple[object, int]] = vars(json.JSONDecoder())["scan_once"]


def is_json(data: bytes) -> bool:
    """Whether `json.loads` takes it, asked the quick way first, which knows no space around and no other encodings."""
    try:
        text = data.decode()
        if _scan_json(text, 0)[1] == len(text):
            return True
    except (StopIteration, ValueError, RecursionError):
        pass
    for form in (str, bytes):
        try:
            json.loads(data.decode() if form is str else data)
            return True
        except (ValueError, RecursionError):
            continue
    return False


def encode_members(key: str, members: Sequence[tuple[str, Payload]]) -> list[Payload]:
    """A sample as pieces of a tar: `members` are (extension, payload), named `key.extension`."""
    parts: list[Payload] = []
    for extension, payload in members:
        parts += (member_header(f"{key}.{extension}", len(payload)), payload, padding(len(payload)))
    return parts


class TarStream:
    """Gives a tar out block by block; a context manager.

    A block is hashed and written by two threads of their own while the next ones are put together:
    both leave the interpreter free. Memory: `_AT_ONCE` blocks, used again and again (of new memory
    every page is made anew).

    Attributes:
        size: bytes given out; the tar's size after `close`.
    """

    def __init__(self, write: Callable[[Payload], object]) -> None:
        self._write = write
        self._hash = hashlib.sha256()
        self._hasher = ThreadPoolExecutor(1, thread_name_prefix="d2prune-hash")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="d2prune-tar")
        self._under_way: collections.deque[tuple[memoryview | None, tuple[Future[None], Future[None]]]]
        self._under_way = collections.deque()
        self._free: list[bytearray] = []
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for thread in (self._hasher, self._writer):
            thread.shutdown(wait=True, cancel_futures=True)

    @property
    def checksum(self) -> str:
        """SHA-256 of the whole tar in hex; valid after `close`."""
        return self._hash.hexdigest()

    def room(self, size: int) -> memoryview:
        """Memory for a block, the caller's until it goes to `put`.

        Raises:
            Whatever `write` raised for an earlier block.
        """
        while len(self._under_way) >= _AT_ONCE:
            self._oldest()
        if size > _ROOM:
            return memoryview(bytearray(size))
        return memoryview(self._free.pop() if self._free else bytearray(_ROOM))[:size]

    def put(self, parts: Sequence[Payload], room: memoryview | None = None) -> None:
        """Append bytes: whole samples.

        Args:
            parts: in order.
            room: the memory they lie in, wholly or partly, if it came from `room`.
        """
        self.size += sum(len(part) for part in parts)
        futures = (
            self._hasher.submit(_each, self._hash.update, parts),
            self._writer.submit(_each, self._write, parts),
        )
        self._under_way.append((room, futures))

    def close(self) -> None:
        """Append the end-of-archive mark and wait until all is given out; errors as `room`."""
        self.put([END_OF_ARCHIVE])
        while self._under_way:
            self._oldest()

    def _oldest(self) -> None:
        room, futures = self._under_way.popleft()
        for future in futures:
            future.result()
        if room is not None and isinstance(room.obj, bytearray) and len(room.obj) == _ROOM:
            self._free.append(room.obj)


def _each(function: Callable[[Payload], object], parts: Sequence[Payload]) -> None:
    for part in parts:
        function(part)
