"""Encode samples as a WebDataset tar and stream it out, computing size and checksum on the way.

Payloads are copied unchanged, with three exceptions. Two kinds of members make a trainer silently
drop the whole sample because WebDataset's decoder raises an error on them: a `txt` that is not
UTF-8 and a `json` that does not parse. The caption is written repaired (as the model saw it), with
the original bytes beside it as `txt-original`. The JSON keeps its bytes under the extension
`json-invalid`, which decoders ignore. Members that a loader would execute (`executable.py`) keep
their bytes under an extension that ends in `-unsafe`.
"""

import collections
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from d2prune.inputs.tar.reader import RawMember
from d2prune.inputs.tar.write import END_OF_ARCHIVE, member_header, padding
from d2prune.output.executable import free_name, is_executable, safe_name

_BLOCKS_IN_FLIGHT = 3
"""Blocks that may be hashed and written while the next one is filled."""

_REUSED_BYTES = 2**20
"""Bytes of a buffer that is reused for other blocks; larger blocks are rare and get their own memory."""

Payload = bytes | memoryview


def make_decodable(
    members: Sequence[RawMember], keep_executable: bool = False
) -> tuple[list[tuple[str, Payload]], tuple[str, ...]]:
    """Choose what to write for a sample's members, so that WebDataset can decode the sample safely.

    Args:
        members: of one sample, in tar order.
        keep_executable: whether members that a loader would execute keep their names.

    Returns:
        (extension, payload) in tar order, and the repairs, one per member: `caption_repaired`,
        `json_set_aside`, `executable_set_aside`.
    """
    written: list[tuple[str, Payload]] = []
    repairs: list[str] = []
    taken = {member.extension for member in members}

    def set_aside(name: str, payload: Payload, repair: str) -> None:
        taken.add(name)
        repairs.append(repair)
        written.append((name, payload))

    for extension, payload in ((member.extension, member.payload) for member in members):
        if extension == "txt":
            raw = bytes(payload)
            try:
                raw.decode()
            except UnicodeDecodeError:
                written.append(("txt", raw.decode(errors="replace").encode()))
                set_aside(free_name("txt-original", taken), payload, "caption_repaired")
                continue
        elif extension == "json":
            if not is_json(bytes(payload)):
                set_aside(free_name("json-invalid", taken), payload, "json_set_aside")
                continue
        elif not keep_executable and is_executable(extension, payload):
            set_aside(safe_name(extension, taken), payload, "executable_set_aside")
            continue
        written.append((extension, payload))
    return written, tuple(repairs)


_SET_ASIDE = re.compile(r"(?:(txt)-original|(json)-invalid|(.+)-unsafe)(?:-\d+)?", re.DOTALL)


def restore_names(extensions: Sequence[str]) -> list[tuple[int, str]]:
    """Undo the renaming of `make_decodable`.

    Args:
        extensions: of the members of a written sample, in tar order.

    Returns:
        (number of the member, extension of the source), without captions that were written repaired.
        For a source that has such names itself the result is not its own.
    """
    found: list[tuple[int, str]] = []
    for number, extension in enumerate(extensions):
        match = _SET_ASIDE.fullmatch(extension)
        if match and match[1] and found and found[-1][1] == "txt":
            found.pop()
        found.append((number, (match[1] or match[2] or match[3]) if match else extension))
    return found


_scan_json: Callable[[str, int], tuple[object, int]] = vars(json.JSONDecoder())["scan_once"]


def is_json(data: bytes) -> bool:
    """Return whether `json.loads` accepts the bytes, as text or as bytes.

    The decoder's scanner is tried first because it is faster; it accepts neither white space around
    the value nor encodings other than UTF-8.
    """
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
    """Encode a sample as consecutive pieces of a tar.

    Args:
        key: the sample's key; members are named `key.extension`.
        members: (extension, payload) in tar order.
    """
    parts: list[Payload] = []
    for extension, payload in members:
        parts += (member_header(f"{key}.{extension}", len(payload)), payload, padding(len(payload)))
    return parts


class TarStream:
    """Write a tar block by block; a context manager.

    One thread hashes a block and another writes it while the caller fills the next one; both
    release the interpreter lock. At most `_BLOCKS_IN_FLIGHT` blocks are in memory, and their
    buffers are reused, since the operating system would have to map every page of a new one.

    Attributes:
        size: bytes appended so far; after `close`, the size of the tar.
    """

    def __init__(self, write: Callable[[Payload], object]) -> None:
        self._write = write
        self._hash = hashlib.sha256()
        self._hasher = ThreadPoolExecutor(1, thread_name_prefix="d2prune-hash")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="d2prune-tar")
        self._in_flight: collections.deque[tuple[memoryview | None, tuple[Future[None], Future[None]]]]
        self._in_flight = collections.deque()
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

    def allocate(self, size: int) -> memoryview:
        """Return memory for a block, which belongs to the caller until it is passed to `put`.

        Raises:
            Exception: the error that `write` raised for an earlier block.
        """
        while len(self._in_flight) >= _BLOCKS_IN_FLIGHT:
            self._wait_for_oldest()
        if size > _REUSED_BYTES:
            return memoryview(bytearray(size))
        return memoryview(self._free.pop() if self._free else bytearray(_REUSED_BYTES))[:size]

    def put(self, parts: Sequence[Payload], memory: memoryview | None = None) -> None:
        """Append complete samples.

        Args:
            parts: their bytes, in order.
            memory: the memory from `allocate` that holds some or all of the parts, if any.
        """
        self.size += sum(len(part) for part in parts)
        futures = (
            self._hasher.submit(_call_for_each, self._hash.update, parts),
            self._writer.submit(_call_for_each, self._write, parts),
        )
        self._in_flight.append((memory, futures))

    def close(self) -> None:
        """Append the end-of-archive mark and wait until everything is written.

        Raises:
            Exception: see `allocate`.
        """
        self.put([END_OF_ARCHIVE])
        while self._in_flight:
            self._wait_for_oldest()

    def _wait_for_oldest(self) -> None:
        memory, futures = self._in_flight.popleft()
        for future in futures:
            future.result()
        if memory is not None and isinstance(memory.obj, bytearray) and len(memory.obj) == _REUSED_BYTES:
            self._free.append(memory.obj)


def _call_for_each(function: Callable[[Payload], object], parts: Sequence[Payload]) -> None:
    for part in parts:
        function(part)
