"""A tolerant, sequential reader of WebDataset tars: yields samples with their byte ranges, and rejects.

Reads front to back in one pass and never seeks, so any storage works. Two guarantees: content never
raises (a truncated or corrupt tar yields `Reject`s beside the samples that survive), and memory
holds at most one sample's wanted members, each at most `max_member_bytes`, plus half a MiB of the
stream. Errors of the stream itself propagate.

How the format is interpreted:

- A sample is a run of members with the same key, as in WebDataset. If the key occurs again later in
  the tar, that is another sample.
- A repeated extension starts a new sample: of two adjacent samples with the same key, both are kept.
- Zero blocks do not end the reading. Members after them (tars joined by `cat`, a hole left by a
  failed upload) are read, and the zeros are a reject: a hole looks like the seam of joined tars.
- After a bad header, reading resumes at the next valid ustar header, at any alignment.
"""

import hashlib
import itertools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, NamedTuple

from d2prune.inputs import rejects
from d2prune.inputs.rejects import Reject
from d2prune.inputs.tar.header import BLOCK
from d2prune.inputs.tar.walk import StreamSource, TarMember, ViewSource, Walker

DEFAULT_MAX_MEMBER_BYTES = 64 << 20
# Members per compiled scan: enough to make the call cheap, few enough not to run far ahead of the caller.
_SCAN_MEMBERS = 512
_SAMPLE_MEMBERS = 32
# Bytes of a stream per compiled scan.
_SCAN_BYTES = 1 << 19


@dataclass(frozen=True, slots=True)
class TarSample:
    """Adjacent members with one key.

    Attributes:
        key: path of the members up to the first dot of the file name.
        offset: byte of the first header in the tar, long-name and PAX headers included.
        size: bytes from there through the padding of the last member.
        members: lower-case extension -> payload, of the wanted members.
        too_large: extension -> size, of wanted members that exceed the limit and were skipped.
        extensions: of all members, in order.
        digests: SHA-256 of all members' payloads, in order; empty unless asked for.
    """

    key: str
    offset: int
    size: int
    members: dict[str, bytes]
    too_large: dict[str, int]
    extensions: tuple[str, ...]
    digests: tuple[bytes, ...] = ()


@dataclass
class TarReader:
    """Iterates over the `TarSample`s and `Reject`s of one tar, in file order.

    Attributes:
        stream: binary stream, read front to back and not closed here.
        extensions: lower-case extensions to load; None loads all. Other members still belong to
            their sample's byte range.
        max_member_bytes: larger members are skipped and listed in `TarSample.too_large`.
        start: byte of the tar where the stream begins, a header or the end.
        with_digests: whether to fill `TarSample.digests`, which hashes every byte of every payload.
        bytes_read: length of the file; valid once exhausted.
        end_mark: whether the file ends in zero blocks; valid once exhausted. A tar truncated between
            two members has no other symptom.
    """

    stream: IO[bytes]
    extensions: frozenset[str] | None = None
    max_member_bytes: int = DEFAULT_MAX_MEMBER_BYTES
    start: int = 0
    with_digests: bool = False
    bytes_read: int = field(default=0, init=False)
    end_mark: bool = field(default=False, init=False)

    def __iter__(self) -> Iterator[TarSample | Reject]:
        position, read_already = yield from self._scan_stream()
        source = StreamSource(self.stream, position + len(read_already))
        source.put_back(read_already)
        wanted = self.extensions
        wants = _want_all if wanted is None else wanted.__contains__
        walker = Walker(source, wants, self.max_member_bytes, self.with_digests)
        group: list[TarMember] = []
        seen: set[str] = set()
        for event in walker:
            if isinstance(event, Reject):
                if group and _is_damaged_by(event, group):
                    event = Reject(group[0].key, event.reason, event.detail)
                elif group:
                    yield self._make_sample(group)
                group, seen = [], set()
                yield event
                continue
            if group and (event.key != group[0].key or event.extension in seen):
                yield self._make_sample(group)
                group, seen = [], set()
            group.append(event)
            seen.add(event.extension)
        if group:
            yield self._make_sample(group)
        self.bytes_read, self.end_mark = source.position, walker.end_mark
        if source.position == 0:
            yield Reject("", rejects.TAR_EMPTY, "the file has 0 bytes")

    def _scan_stream(self) -> Generator[TarSample, None, tuple[int, bytes]]:
        """Run `_scan_view` over blocks; return where the rest begins, and what was read of it."""
        base, held = self.start, b""
        while True:
            parts = [held]
            missing = _SCAN_BYTES - len(held)
            while missing and (more := self.stream.read(missing)):
                parts.append(more)
                missing -= len(more)
            held = b"".join(parts)
            used = yield from self._scan_view(memoryview(held), base)
            base, held = base + used, held[used:]
            # Also stop where one sample fills the block: header cost does not matter there.
            if missing or not used:
                return base, held

    def _scan_view(self, view: memoryview, base: int) -> Generator[TarSample, None, int]:
        """Yield samples up to the first header that is not ordinary; return where the rest begins.

        The walker would yield the same samples. It gets the sample that contains that header, and
        the last one before the end mark. `base` is the byte of the tar where the view begins.
        """
        from d2prune.inputs.tar import header_scan

        wanted = self.extensions
        names: dict[bytes, str] = {}
        position, max_rows = 0, _SCAN_MEMBERS
        while True:
            found = header_scan.scan_members(view, position, self.max_member_bytes, max_rows)
            firsts = found[:, header_scan.IS_FIRST].nonzero()[0].tolist()
            rows = found.tolist()
            for low, high in itertools.pairwise(firsts):
                start, _, key_end, _, _ = rows[low]
                members: dict[str, bytes] = {}
                extensions: list[str] = []
                digests: list[bytes] = []
                for at, size, _, name_end, _ in rows[low:high]:
                    raw = bytes(view[at + key_end + 1 : at + name_end])
                    extension = names.get(raw)
                    if extension is None:
                        # Usually there are few extensions, but a tar may have any number.
                        names = names if len(names) < _SCAN_MEMBERS else {}
                        extension = names[raw] = raw.decode("ascii").lower()
                    extensions.append(extension)
                    payload = view[at + BLOCK : at + BLOCK + size]
                    if self.with_digests:
                        digests.append(hashlib.sha256(payload).digest())
                    if wanted is None or extension in wanted:
                        members[extension] = bytes(payload)
                key = str(view[start : start + key_end], "ascii")
                length = rows[high][0] - start
                yield TarSample(key, base + start, length, members, {}, tuple(extensions), tuple(digests))
            if firsts:
                position = rows[firsts[-1]][0]
            if len(rows) < max_rows:
                return position
            if len(firsts) == 1:
                max_rows *= 2

    def _make_sample(self, group: list[TarMember]) -> TarSample:
        wanted = self.extensions
        members = {member.extension: member.payload for member in group if member.payload is not None}
        too_large = {
            member.extension: member.size
            for member in group
            if member.size > self.max_member_bytes and (wanted is None or member.extension in wanted)
        }
        return TarSample(
            key=group[0].key,
            offset=group[0].offset,
            size=group[-1].end - group[0].offset,
            members=members,
            too_large=too_large,
            extensions=tuple(member.extension for member in group),
            digests=tuple(member.digest for member in group) if self.with_digests else (),
        )


class RawMember(NamedTuple):
    """One member of a sample's byte range; `payload` is a view of the given bytes."""

    name: str
    extension: str
    payload: memoryview


def parse_sample(data: bytes | memoryview) -> list[RawMember]:
    """Split the bytes of one sample's range (`offset`, `size` of the embed artifact) into its members.

    Args:
        data: exactly the range; the padding of the last member may be missing.

    Returns:
        The members of the sample in tar order, without hidden files and directories.

    Raises:
        ValueError: the bytes are not complete members; the range is wrong or the file changed.
    """
    view = memoryview(data)
    ordinary = _parse_ordinary(view)
    if ordinary is not None:
        return ordinary
    members = []
    walker = Walker(ViewSource(view), _want_none, 0)
    for event in walker:
        if isinstance(event, Reject):
            raise ValueError(f"not a sample's byte range: {event.reason}: {event.detail}")
        members.append(RawMember(event.name, event.extension, view[event.start : event.start + event.size]))
    return members


def _parse_ordinary(view: memoryview) -> list[RawMember] | None:
    """Parse a sample with ordinary headers only, in a third of the time; None where one is not ordinary."""
    from d2prune.inputs.tar import header_scan

    rows = header_scan.scan_members(view, 0, len(view), _SAMPLE_MEMBERS).tolist()
    if not rows or len(rows) == _SAMPLE_MEMBERS:
        return None
    at, size, _, _, _ = rows[-1]
    if at + BLOCK + size + -size % BLOCK < len(view):
        return None
    found = []
    for at, size, key_end, name_end, _ in rows:
        name = str(view[at : at + name_end], "ascii")
        found.append(RawMember(name, name[key_end + 1 :].lower(), view[at + BLOCK : at + BLOCK + size]))
    return found


def _is_damaged_by(event: Reject, group: Sequence[TarMember]) -> bool:
    """Return whether a fault begins inside a sample: it is one reject, not a sample that lacks bytes."""
    if event.reason == rejects.TAR_ZEROS:
        payload = group[-1].payload or b""
        return payload != b"" and not payload[(len(payload) - 1) // BLOCK * BLOCK :].strip(b"\0")
    return event.reason == rejects.TAR_TRUNCATED and event.key == group[0].key


def _want_all(_extension: str) -> bool:
    return True


def _want_none(_extension: str) -> bool:
    return False
