"""One sample's bytes -> pixels for the model, caption and uid; or the reason why not. Pure functions, safe in threads.

Pixels are those of open_clip's own data loader: Pillow decodes, converts to RGB, then the model's
resize and crop run. Runs in decode processes, so it must import neither torch nor pyarrow: a
process takes 25 MB instead of hundreds. So EXIF orientation is not applied, transparency is dropped
(not blended), 16-bit gray is clipped, CMYK is converted by Pillow without a profile, and of an
animation the first frame counts: what training with open_clip would see.
"""

import hashlib
import io
import json
import math
import re
import warnings
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import PIL
from PIL import Image, UnidentifiedImageError, features

from d2prune.embed.decode.resize import Preprocess
from d2prune.embed.filters import Filtered, Filters
from d2prune.inputs import reasons
from d2prune.inputs.tar.reader import Sample

IMAGE_EXTENSIONS = ("jpg", "png", "jpeg", "webp")
"""In open_clip's order of preference, where a sample has several."""

CAPTION_EXTENSION = "txt"
JSON_EXTENSION = "json"
WANTED_EXTENSIONS = frozenset({*IMAGE_EXTENSIONS, CAPTION_EXTENSION, JSON_EXTENSION})

# What the web serves under these extensions. Pillow would try everything else it knows too,
# PostScript among it. Loaded here, not at the first picture, since threads would race; older
# Pillows lack AVIF.
Image.init()
_FORMATS = tuple(name for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF") if name in Image.OPEN)
_UID = re.compile(r"[0-9a-f]{32}", re.IGNORECASE)

FieldKind = Literal["number", "text"]

CAPTION_REPLACED = "caption-replaced"
"""Counter: captions that were not UTF-8 and were decoded with replacement characters."""
UID_FROM_HASH = "uid-from-hash"
"""Counter: samples without a valid uid in their json."""
JSON_BROKEN = "json-broken"
"""Counter: json members that could not be parsed, or were too large to load."""


def libraries() -> str:
    """What decides pixels: machines where this differs may decode a picture to other bytes."""
    parts = ("libjpeg_turbo", "jpg", "webp", "avif")
    return ", ".join([f"Pillow {PIL.__version__}", *(f"{part} {features.version(part)}" for part in parts)])


class Refusal(Exception):
    """Why a sample is rejected, on its way to becoming a `Rejected`."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Rejected:
    """This sample cannot be embedded; `reason` is from `d2prune.inputs.reasons`."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """A sample ready for the encoder but for its pixels, which lie in its slot.

    `notes` are counters to raise, `offset` and `size` its range in the tar, `width` and `height`
    the image's own, `fields` the values of the json that were asked for, `tokens` the caption's for
    each model as int64 bytes (empty: not made yet).
    """

    key: str
    offset: int
    size: int
    uid: str
    caption: str
    width: int
    height: int
    notes: tuple[str, ...]
    fields: tuple[float | str, ...] = ()
    tokens: tuple[bytes, ...] = ()


class Decoded(NamedTuple):
    """An RGB image, and the size it had in its file."""

    image: Image.Image
    width: int
    height: int


@dataclass(frozen=True)
class Decoder:
    """What a decode process does with a sample; see `decode_pool.Work`.

    Attributes:
        preprocess: makes the model's pixels.
        others: make those of further models; they follow in the slot, in this order.
        max_pixels: bounds width times height of the image, and of what any resize makes of it: an image of
            10 x 100,000 pixels would become 224 x 2,240,000. Larger ones are refused before they cost memory.
        fields: names and kinds of json values to carry along.
        filters: what captions and images must have.
    """

    preprocess: Preprocess
    max_pixels: int
    fields: tuple[tuple[str, FieldKind], ...] = ()
    filters: Filters = field(default_factory=Filters)
    others: tuple[Preprocess, ...] = ()

    def setup(self) -> None:
        """Loads what filters need, leaves size limits to `max_pixels`, keeps Pillow's remarks on EXIF to itself."""
        self.filters.setup()
        Image.MAX_IMAGE_PIXELS = None
        warnings.filterwarnings("ignore", module="PIL")

    def __call__(self, sample: Sample, into: memoryview) -> Prepared | Rejected:
        """Decodes one sample.

        Args:
            sample: with its image, caption and json members loaded.
            into: receives the pixels, uint8 [H, W, 3] for each size; of a rejected sample, anything
                or nothing.

        Returns:
            The sample, or why it is rejected. Captions are looked at first: they cost nothing.
        """
        try:
            return self._prepare(sample, into)
        except (Refusal, Filtered) as refusal:
            return Rejected(refusal.reason, refusal.detail)

    def _prepare(self, sample: Sample, into: memoryview) -> Prepared:
        caption_bytes = _caption_member(sample)
        image_bytes = _image_member(sample)
        caption, replaced = decode_caption(caption_bytes)
        self.filters.check_caption(caption)
        record, notes = parse_json(sample.members.get(JSON_EXTENSION))
        values = tuple(field_value(record, name, kind) for name, kind in self.fields)
        image, width, height = self.decode(image_bytes)
        try:
            self._fill(into, image, image_bytes)
        except (ValueError, OSError) as error:
            raise Refusal(reasons.IMAGE_UNDECODABLE, f"preprocessing: {_line(error)}") from error
        uid, more = _uid_of(record, image_bytes, caption_bytes)
        notes = (*notes, *more)
        if JSON_EXTENSION in sample.too_large:
            notes = (*notes, JSON_BROKEN)
        if replaced:
            notes = (*notes, CAPTION_REPLACED)
        return Prepared(
            key=sample.key,
            offset=sample.offset,
            size=sample.size,
            uid=uid,
            caption=caption,
            width=width,
            height=height,
            notes=notes,
            fields=values,
        )

    def _fill(self, into: memoryview, image: Image.Image, data: bytes) -> None:
        start = 0
        for preprocess in (self.preprocess, *self.others):
            if start and preprocess.method == "fast":
                # At the scale that this size asks for: pixels are those of the model alone.
                image = self.decode(data, preprocess).image
            stop = start + preprocess.n_bytes
            into[start:stop] = preprocess(image).tobytes()
            start = stop

    def decode(self, data: bytes, preprocess: Preprocess | None = None) -> Decoded:
        """Decodes to 8-bit RGB, smaller than in the file if `preprocess` (default: the decoder's own) asks for that.

        Raises:
            Refusal: too many pixels by the header (nothing is decoded then), truncated, or not an image.
            Filtered: too small or too narrow.
        """
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                width, height = image.size
                self._check_size(width, height)
                self.filters.check_image(width, height)
                (preprocess or self.preprocess).draft(image)
                return Decoded(image.convert("RGB"), width, height)
        except (Refusal, Filtered):
            raise
        except Image.DecompressionBombError as error:
            raise Refusal(reasons.IMAGE_TOO_LARGE, _line(error)) from error
        except UnidentifiedImageError as error:
            reason = reasons.IMAGE_TRUNCATED if _lacks_its_end(data) else reasons.IMAGE_UNDECODABLE
            raise Refusal(reason, f"{len(data)} bytes that start with {data[:12]!r}") from error
        except MemoryError:
            raise
        except Exception as error:
            # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, IndexError and
            # more on bad bytes.
            truncated = "truncated" in str(error).lower() or _lacks_its_end(data)
            raise Refusal(
                reasons.IMAGE_TRUNCATED if truncated else reasons.IMAGE_UNDECODABLE, _line(error)
            ) from error

    def _check_size(self, width: int, height: int) -> None:
        limit = self.max_pixels
        if width * height > limit:
            raise Refusal(reasons.IMAGE_TOO_LARGE, f"{width} x {height} pixels, limit {limit}")
        if not width or not height:
            return
        for preprocess in (self.preprocess, *self.others):
            resized = math.prod(preprocess.resized_size(width, height))
            if resized > limit:
                detail = (
                    f"{width} x {height} is so narrow that resizing gives {resized} pixels, limit {limit}"
                )
                raise Refusal(reasons.IMAGE_TOO_LARGE, detail)


def decode_caption(data: bytes) -> tuple[str, bool]:
    """Decodes UTF-8 and strips white space and a byte order mark.

    Returns:
        The caption, and whether bytes had to be replaced.

    Raises:
        Refusal: nothing is left.
    """
    try:
        text, replaced = data.decode("utf-8"), False
    except UnicodeDecodeError:
        text, replaced = data.decode("utf-8", "replace"), True
    text = text.removeprefix("\ufeff").strip()
    if not text:
        raise Refusal(reasons.CAPTION_EMPTY, f"{len(data)} bytes of white space" if data else "0 bytes")
    return text, replaced


def parse_json(data: bytes | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The json member as a dict (empty where it is missing, broken or another kind of value), and counters to raise."""
    if data is None:
        return {}, ()
    try:
        # Bytes would be searched for their encoding, which takes as long as reading them; the rare
        # other kind is below.
        record = json.loads(data.decode())
    except (ValueError, RecursionError):
        try:
            record = json.loads(data)
        except (ValueError, RecursionError):
            return {}, (JSON_BROKEN,)
    return (record if isinstance(record, dict) else {}), ()


def sample_uid(
    json_bytes: bytes | None, image_bytes: bytes, caption_bytes: bytes
) -> tuple[str, tuple[str, ...]]:
    """The sample's name to the outside.

    Returns:
        The json's `uid` if it is 32 hex digits (lower-cased), else `hashed_uid`; and the counters to raise.
    """
    record, notes = parse_json(json_bytes)
    uid, more = _uid_of(record, image_bytes, caption_bytes)
    return uid, (*notes, *more)


def _uid_of(record: dict[str, Any], image_bytes: bytes, caption_bytes: bytes) -> tuple[str, tuple[str, ...]]:
    uid = record.get("uid")
    if isinstance(uid, str) and _UID.fullmatch(uid):
        return uid.lower(), ()
    return hashed_uid(image_bytes, caption_bytes), (UID_FROM_HASH,)


def field_value(record: dict[str, Any], name: str, kind: FieldKind) -> float | str:
    """A value of the json as the kind that was declared; a text that is missing is empty.

    Raises:
        Refusal: a number is missing, or is none.
    """
    value = record.get(name)
    if kind == "text":
        return "" if value is None else str(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Refusal(reasons.FIELD_MISSING, f"{name} is {str(value)[:50]}, expected a number")
    return float(value)


def hashed_uid(image_bytes: bytes, caption_bytes: bytes) -> str:
    """BLAKE2b-128 over the image's length (8 bytes, little-endian), its bytes and the caption's bytes, in hex."""
    digest = hashlib.blake2b(len(image_bytes).to_bytes(8, "little"), digest_size=16)
    digest.update(image_bytes)
    digest.update(caption_bytes)
    return digest.hexdigest()


def _caption_member(sample: Sample) -> bytes:
    if CAPTION_EXTENSION in sample.too_large:
        raise Refusal(reasons.CAPTION_TOO_LARGE, f"{sample.too_large[CAPTION_EXTENSION]} bytes")
    if CAPTION_EXTENSION not in sample.members:
        raise Refusal(reasons.CAPTION_MISSING, _listing(sample))
    return sample.members[CAPTION_EXTENSION]


def _image_member(sample: Sample) -> bytes:
    for extension in IMAGE_EXTENSIONS:
        if extension in sample.too_large:
            raise Refusal(reasons.IMAGE_TOO_LARGE, f"{sample.too_large[extension]} bytes")
        if extension in sample.members:
            return sample.members[extension]
    raise Refusal(reasons.IMAGE_MISSING, _listing(sample))


def _listing(sample: Sample) -> str:
    shown = ", ".join(sample.extensions[:8])
    return f"members: {shown}" + (", ..." if len(sample.extensions) > 8 else "")


def _lacks_its_end(data: bytes) -> bool:
    """Whether the bytes start as JPEG, PNG, WebP or GIF and lack the format's end mark, or the length it states."""
    if data.startswith(b"\xff\xd8\xff"):
        return b"\xff\xd9" not in data
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" not in data
    if data.startswith(b"RIFF") and (data[8:12] == b"WEBP" or len(data) < 12):
        return len(data) < 12 or int.from_bytes(data[4:8], "little") + 8 > len(data)
    if data.startswith(b"GIF8"):
        return not data.rstrip(b"\0").endswith(b";")
    return False


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
