"""Identity of a sample: which members make it up, and its uid.

The uid is the `uid` of the JSON member if that is 32 hex digits or a UUID, else a hash of image and
caption.
The embed stage and resharding both use this module, so they agree on every uid. Decode processes
import it: it must load neither torch nor pyarrow.
"""

import hashlib
import json
import re
from typing import Any

IMAGE_EXTENSIONS = ("jpg", "png", "jpeg", "webp")
"""In open_clip's order of preference, where a sample has several."""

CAPTION_EXTENSION = "txt"
JSON_EXTENSION = "json"
SAMPLE_EXTENSIONS = frozenset({*IMAGE_EXTENSIONS, CAPTION_EXTENSION, JSON_EXTENSION})
"""Members that embedding needs."""

UID_FROM_HASH = "uid-from-hash"
"""Counter: samples without a valid uid in their JSON."""
JSON_BROKEN = "json-broken"
"""Counter: JSON members that could not be parsed, or were too large to load."""

MAX_TEXT = 16_384
"""Characters of a field that are kept: a row group of the longest texts must fit into memory, and into the
2 GiB of an Arrow string column."""

UID_PATTERN = "[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
"""Regular expression of a uid: 32 hex digits, or a UUID, which has dashes."""

_UID = re.compile(UID_PATTERN)


def sample_uid(
    json_bytes: bytes | None, image_bytes: bytes, caption_bytes: bytes
) -> tuple[str, tuple[str, ...]]:
    """Return the uid of a sample.

    Args:
        json_bytes: its JSON member; None where it has none.
        image_bytes: its image, as stored.
        caption_bytes: its caption, as stored.

    Returns:
        The uid (32 lower-case hex digits), and the counters to increment.
    """
    record, notes = parse_json(json_bytes)
    uid, more = uid_of_record(record, image_bytes, caption_bytes)
    return uid, (*notes, *more)


def uid_of_record(
    record: dict[str, Any], image_bytes: bytes, caption_bytes: bytes
) -> tuple[str, tuple[str, ...]]:
    """Return what `sample_uid` returns, for a JSON member that is already parsed."""
    uid = record.get("uid")
    found = normal_uid(uid) if isinstance(uid, str) else None
    if found is not None:
        return found, ()
    return hashed_uid(image_bytes, caption_bytes), (UID_FROM_HASH,)


def normal_uid(text: str) -> str | None:
    """Return a uid as 32 lower-case hex digits without dashes; None if it is not one."""
    return text.replace("-", "").lower() if _UID.fullmatch(text) else None


def hashed_uid(image_bytes: bytes, caption_bytes: bytes) -> str:
    """Return BLAKE2b-128, in hex, of the image's length (8 bytes, little-endian), image and caption."""
    digest = hashlib.blake2b(len(image_bytes).to_bytes(8, "little"), digest_size=16)
    digest.update(image_bytes)
    digest.update(caption_bytes)
    return digest.hexdigest()


def parse_json(data: bytes | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Parse a JSON member.

    Returns:
        The object (empty where the member is missing, broken or not an object), and the counters to
        increment.
    """
    if data is None:
        return {}, ()
    try:
        # Given bytes, json.loads first detects their encoding, which takes as long as parsing them.
        # The rare encodings other than UTF-8 are handled below.
        record = json.loads(data.decode())
    except (ValueError, RecursionError):
        try:
            record = json.loads(data)
        except (ValueError, RecursionError):
            return {}, (JSON_BROKEN,)
    return (record if isinstance(record, dict) else {}), ()
