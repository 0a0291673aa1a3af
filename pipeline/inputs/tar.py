"""A tolerant, sequential reader of WebDataset tars: a binary stream -> samples with byte ranges, and faults.

Reads one pass front to back and never seeks, so any storage serves. It keeps two promises: content never raises (a cut
or garbled tar gives `Fault`s beside the samples that survive), and memory holds at most one sample's wanted members,
each at most `max_member_bytes`. Errors of the stream itself pass through.

Choices a reader of the format may ask about:

- A sample is a run of members with one key, as in WebDataset; the same key again later is another sample.
- A repeated extension starts a new sample: two samples of one name side by side are both kept.
- Zero blocks do not end the reading: what follows them (tars joined by `cat`, a hole left by a failed upload) is read.
- After a bad header the reader goes on at the next block that is a valid ustar header, at any alignment.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import IO, NamedTuple

from pipeline.inputs import reasons
from pipeline.inputs.tar_header import BLOCK, decode_name, parse_header, split_name
from pipeline.inputs.tar_walk import Fault, Member, StreamSource, ViewSource, Walker

__all__ = ["DEFAULT_MAX_MEMBER_BYTES", "Fault", "RawMember", "Sample", "TarReader", "parse_sample"]

DEFAULT_MAX_MEMBER_BYTES = 64 << 20
_ORDINARY = ord("0")


@dataclass(frozen=True, slots=True)
class Sample:
    """Adjacent members with one key.

    `offset` and `size` are the bytes of the whole sample in the tar: from the first header block (long-name and PAX
    headers included) through the padding of the last member. `members` maps lower-case extension to payload;
    `too_large` maps extension to size for members that were wanted and skipped over; `extensions` names all, in order.
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
        stream: binary stream, read front to back, not closed here; or the whole file as a view (a mapped local file),
            where passing over a member costs nothing.
        extensions: lower-case extensions to load; None loads all. Other members still belong to their sample's range.
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
        start = 0
        if isinstance(self.stream, memoryview):
            start = yield from self._plain_samples(self.stream)
        source = ViewSource(self.stream, start) if isinstance(self.stream, memoryview) else StreamSource(self.stream)
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

    def _plain_samples(self, view: memoryview) -> Generator[Sample, None, int]:
        """The samples up to the first header that is not quite ordinary; returns where the rest begins.

        Says what the general way says, at a third of its time. The sample under way there is left to the general way,
        and so is the last one before the end mark.
        """
        wanted, largest = self.extensions, self.max_member_bytes
        position = start = 0
        key, prefix = "", b"/"
        members: dict[str, bytes] = {}
        extensions: list[str] = []
        end = len(view)
        while position + BLOCK <= end:
            header = parse_header(bytes(view[position : position + BLOCK]))
            if header is None or header.kind != _ORDINARY or header.size > largest or not header.name.isascii():
                break
            payload = position + BLOCK
            after = payload + -(-header.size // BLOCK) * BLOCK
            if after > end or header.name.startswith(b"__"):
                break
            rest = header.name[len(prefix) :]
            next_key = key
            if header.name.startswith(prefix) and b"/" not in rest:
                extension = rest.decode("ascii").lower()
            else:
                split = split_name(header.name.decode("ascii"))
                if split is None:
                    break
                next_key, extension = split
            if next_key != key or extension in extensions:
                if extensions:
                    yield Sample(key, start, position - start, members, {}, tuple(extensions))
                key, prefix = next_key, next_key.encode("ascii") + b"."
                start, members, extensions = position, {}, []
            extensions.append(extension)
            if wanted is None or extension in wanted:
                members[extension] = bytes(view[payload : payload + header.size])
            position = after
        return start if extensions else position

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
    """The members where all are ordinary (no long names, no PAX, nothing hidden), which halves the time; else None."""
    members = []
    position, end = 0, len(view)
    prefix = "/"
    while position < end:
        header = parse_header(bytes(view[position : position + BLOCK])) if position + BLOCK <= end else None
        if header is None or header.kind != _ORDINARY:
            return None
        name = decode_name(header.name)
        if name.startswith(prefix) and "/" not in name[len(prefix) :] and not name.startswith("__"):
            extension = name[len(prefix) :].lower()
        else:
            split = split_name(name)
            if split is None:
                return None
            prefix, extension = f"{split[0]}.", split[1]
        start = position + BLOCK
        stop = start + header.size
        if stop > end:
            return None
        members.append(RawMember(name, extension, view[start:stop]))
        position = stop + -header.size % BLOCK
    return members


def _everything(_extension: str) -> bool:
    return True


def _nothing(_extension: str) -> bool:
    return False
