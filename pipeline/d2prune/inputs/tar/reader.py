"""A tolerant, sequential reader of WebDataset tars: a binary stream -> samples with byte ranges, and faults.

Reads one pass front to back and never seeks, so any storage serves. It keeps two promises: content
never raises (a cut or garbled tar gives `Fault`s beside the samples that survive), and memory holds
at most one sample's wanted members, each at most `max_member_bytes`, and half a MiB of the stream.
Errors of the stream itself pass through.

Choices a reader of the format may ask about:

- A sample is a run of members with one key, as in WebDataset; the same key again later is another sample.
- A repeated extension starts a new sample: two samples of one name side by side are both kept.
- Zero blocks do not end the reading: what follows them (tars joined by `cat`, a hole left by a failed upload) is read.
- After a bad header the reader goes on at the next block that is a valid ustar header, at any alignment.
"""

import itertools
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import IO, NamedTuple

import numpy as np

from d2prune.inputs import reasons
from d2prune.inputs.tar.header import BLOCK
from d2prune.inputs.tar.walk import Fault, Member, StreamSource, ViewSource, Walker

__all__ = ["DEFAULT_MAX_MEMBER_BYTES", "Fault", "RawMember", "Sample", "TarReader", "parse_sample"]

DEFAULT_MAX_MEMBER_BYTES = 64 << 20
# Members looked at in one go: enough to make the call cheap, few enough not to run ahead of who reads.
_PLAIN_MEMBERS = 512
_SAMPLE_MEMBERS = 32
# Of a stream, looked at in one go.
_PLAIN_BYTES = 1 << 19


@dataclass(frozen=True, slots=True)
class Sample:
    """Adjacent members with one key.

    `offset` and `size` are the bytes of the whole sample in the tar: from the first header block
    (long-name and PAX headers included) through the padding of the last member. `members` maps
    lower-case extension to payload; `too_large` maps extension to size for members that were wanted
    and skipped over; `extensions` names all, in order.
    """

    key: str
    offset: int
    size: int
    members: dict[str, bytes]
    too_large: dict[str, int]
    extensions: tuple[str, ...]


@dataclass
class TarReader:
    """Iterates over `Sample`s and `Fault`s of one tar, in file order.

    Args:
        stream: binary stream, read front to back, not closed here; or the whole file as a view (a
            mapped local file), where passing over a member costs nothing.
        extensions: lower-case extensions to load; None loads all. Other members still belong to
            their sample's range.
        max_member_bytes: members above are skipped over and named in `Sample.too_large`.

    Attributes (valid once exhausted):
        bytes_read: length of the file.
        end_mark: whether the file ends in zero blocks. A tar cut between two members shows in nothing else.
    """

    stream: IO[bytes] | memoryview
    extensions: frozenset[str] | None = None
    max_member_bytes: int = DEFAULT_MAX_MEMBER_BYTES
    bytes_read: int = field(default=0, init=False)
    end_mark: bool = field(default=False, init=False)

    def __iter__(self) -> Iterator[Sample | Fault]:
        source: ViewSource | StreamSource
        if isinstance(self.stream, memoryview):
            source = ViewSource(self.stream, (yield from self._plain_samples(self.stream, 0)))
        else:
            position, read_already = yield from self._plain_blocks(self.stream)
            source = StreamSource(self.stream, position + len(read_already))
            source.put_back(read_already)
        wanted = self.extensions
        walker = Walker(source, _everything if wanted is None else wanted.__contains__, self.max_member_bytes)
        group: list[Member] = []
        seen: set[str] = set()
        for event in walker:
            if isinstance(event, Fault):
                # A sample that the end of the file cuts is one fault, not a sample with a member missing.
                cut = event.reason == reasons.TAR_TRUNCATED and group and event.key == group[0].key
                if group and not cut:
                    yield self._sample(group)
                group, seen = [], set()
                yield event
                continue
            if group and (event.key != group[0].key or event.extension in seen):
                yield self._sample(group)
                group, seen = [], set()
            group.append(event)
            seen.add(event.extension)
        if group:
            yield self._sample(group)
        self.bytes_read, self.end_mark = source.position, walker.end_mark
        if source.position == 0:
            yield Fault("", reasons.TAR_EMPTY, "the file has 0 bytes", 0)

    def _plain_blocks(self, stream: IO[bytes]) -> Generator[Sample, None, tuple[int, bytes]]:
        """`_plain_samples` of a stream, a block at a time; returns where the rest begins and what was read of it."""
        base, held = 0, b""
        while True:
            parts = [held]
            missing = _PLAIN_BYTES - len(held)
            while missing and (more := stream.read(missing)):
                parts.append(more)
                missing -= len(more)
            held = b"".join(parts)
            used = yield from self._plain_samples(memoryview(held), base)
            base, held = base + used, held[used:]
            # Also where one sample fills the block: what a header costs does not matter there.
            if missing or not used:
                return base, held

    def _plain_samples(self, view: memoryview, base: int) -> Generator[Sample, None, int]:
        """The samples up to the first header that is not quite ordinary; returns where the rest begins.

        Says what the general way says. The sample under way there is left to the general way, and
        so is the last one before the end mark. `base` is where in the tar the view begins.
        """
        from d2prune.inputs.tar import scan

        wanted = self.extensions
        names: dict[bytes, str] = {}
        position, most = 0, _PLAIN_MEMBERS
        while True:
            found = scan.members(view, position, self.max_member_bytes, most)
            firsts = np.flatnonzero(found[:, scan.IS_FIRST]).tolist()
            rows = found.tolist()
            for low, high in itertools.pairwise(firsts):
                start, _, key_end, _, _ = rows[low]
                members: dict[str, bytes] = {}
                extensions: list[str] = []
                for at, size, _, name_end, _ in rows[low:high]:
                    raw = bytes(view[at + key_end + 1 : at + name_end])
                    extension = names.get(raw)
                    if extension is None:
                        # Extensions are few, but nothing promises it.
                        names = names if len(names) < _PLAIN_MEMBERS else {}
                        extension = names[raw] = raw.decode("ascii").lower()
                    extensions.append(extension)
                    if wanted is None or extension in wanted:
                        members[extension] = bytes(view[at + BLOCK : at + BLOCK + size])
                key = str(view[start : start + key_end], "ascii")
                yield Sample(key, base + start, rows[high][0] - start, members, {}, tuple(extensions))
            if firsts:
                position = rows[firsts[-1]][0]
            if len(rows) < most:
                return position
            if len(firsts) == 1:
                most *= 2

    def _sample(self, group: list[Member]) -> Sample:
        wanted = self.extensions
        members = {member.extension: member.payload for member in group if member.payload is not None}
        too_large = {
            member.extension: member.size
            for member in group
            if member.size > self.max_member_bytes and (wanted is None or member.extension in wanted)
        }
        return Sample(
            key=group[0].key,
            offset=group[0].offset,
            size=group[-1].end - group[0].offset,
            members=members,
            too_large=too_large,
            extensions=tuple(member.extension for member in group),
        )


class RawMember(NamedTuple):
    """One member of a sample's byte range; `payload` is a view into the bytes given."""

    name: str
    extension: str
    payload: memoryview


def parse_sample(data: bytes | memoryview) -> list[RawMember]:
    """Splits the bytes of one sample's range (`offset`, `size` of the embed artifact) into its members.

    Args:
        data: exactly the range; it may lack the last padding.

    Returns:
        The members of the sample in tar order, hidden files and directories left out.

    Raises:
        ValueError: the bytes are not whole members; the range or the file under it is wrong.
    """
    view = memoryview(data)
    plain = _plain_members(view)
    if plain is not None:
        return plain
    members = []
    walker = Walker(ViewSource(view), _nothing, 0)
    for event in walker:
        if isinstance(event, Fault):
            raise ValueError(f"not a sample's byte range: {event.reason}: {event.detail}")
        members.append(RawMember(event.name, event.extension, view[event.start : event.start + event.size]))
    return members


def _plain_members(view: memoryview) -> list[RawMember] | None:
    """The members where all are ordinary (no long names, no PAX, nothing hidden), at a third of the time; else None."""
    from d2prune.inputs.tar import scan

    rows = scan.members(view, 0, len(view), _SAMPLE_MEMBERS).tolist()
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


def _everything(_extension: str) -> bool:
    return True


def _nothing(_extension: str) -> bool:
    return False
