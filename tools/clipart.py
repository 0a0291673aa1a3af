"""Read captioned images from Debian's clip art and from emoji and icon packages.

Reads the unpacked packages below a root folder ("/" if they are installed) and returns
:class:`ImageRecord` objects in sorted order; also decodes them. Writes nothing. The pool is taken
from Open Clip Art; the other sources are for training only. Invariant: the records depend on the
files alone.
"""

import io
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

from PIL import Image

__all__ = [
    "ImageRecord", "caption", "decode", "is_unfit", "read_extra_images", "read_open_clip_art", "title_stem",
]  # fmt: skip

_CLIPART = "usr/share/openclipart"
_GEMS = "usr/share/rubygems-integration/all/gems"
_ICONIFY = "node_modules/@iconify-json"

_TITLE = re.compile(r"<dc:title[^>]*>(.*?)</dc:title>", re.DOTALL)
_KEYWORD = re.compile(r"<rdf:li[^>]*>(.*?)</rdf:li>", re.DOTALL)
_SIGNED = re.compile(r"^clip ?art by .*? - ", re.IGNORECASE)
# Symbols of hate, violence, nudity, protected characters, and a series that shows an exporter's
# error message. Entries match complete words; "*" stands for any ending. Compiled by looking at the
# whole pool.
_UNFIT_WORDS = (
    "swastika*", "hakenkreuz*", "sunwheel*", "zonnerad*", "schwarze sonne", "black sun",
    "wolfsangel", "totenkopf", "lauburu", "nazi*", "neonazi*", "hitler*", "ss", "reich*",
    "wehrmacht", "fascis*", "mussolini", "kkk", "ku klux", "white power", "celtic cross",
    "confedera*", "dixie", "mississippi", "historic south africa", "brozo", "gallows",
    "little boy at*", "fat man at*", "atomic bomb", "what have you done", "nude*", "naked", "sex",
    "sexy", "sexual*", "erot*", "porn*", "stripper*", "striptease", "genital*", "penis*", "vagina*",
    "babe", "condom", "condoms", "fetish*", "bondage", "prostitut*", "rape", "pimp",
    "female silhouette", "eris", "mermaid*", "daedalus*", "my lovely baby", "domo kun",
    "saku robot", "stylized yoga",
)  # fmt: skip
_UNFIT = re.compile(rf"\b({'|'.join(_UNFIT_WORDS)})\b".replace("*", r"\w*"))
# Entries among the keywords that come from the collection's own tools.
_JUNK_KEYWORD = re.compile(r"^(hash|unsorted|0x[0-9a-f]+|.*\(0x.*|)$", re.IGNORECASE)

# Variants of one emoji by skin tone and hair.
_VARIANT = re.compile(r"-(light|medium|dark)(-|$)|-skin-tone|-(red|curly|white)-hair|-bald")
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"

# A few drawings were exported at more than 100 megapixels; each takes up to a minute to decode.
_MAX_PIXELS = 40_000_000


@dataclass(frozen=True)
class ImageRecord:
    """One image and the words that describe it.

    Attributes:
        path: file that Pillow can open, or that contains `svg`.
        title: title given by the author, or the name in the collection; may be vague.
        keywords: more words, the most general last if the source orders them; may be empty.
        source: package, and path within the collection.
        name: words of the file name, for titles without information.
        svg: the SVG code of an icon that is part of a larger file; decoding needs ``rsvg-convert``.
    """

    path: Path
    title: str
    keywords: tuple[str, ...]
    source: str
    name: str
    svg: "str | None" = None


def caption(record: ImageRecord, max_keywords: int = 6) -> str:
    """Return the caption: the title, then at most `max_keywords` keywords that add something."""
    words = [record.title]
    seen = record.title.lower()
    for keyword in record.keywords:
        if keyword.lower().removesuffix("s") not in seen:
            words.append(keyword)
            seen += " " + keyword.lower()
    return ", ".join(words[: max_keywords + 1])


def title_stem(text: str) -> str:
    """Return a title or file name in lower case, without digits and punctuation."""
    return " ".join(re.findall(r"[^\W\d_]+", text.lower()))


def read_open_clip_art(root: Path) -> list[ImageRecord]:
    """Return the suitable images of ``openclipart-png``, sorted by path.

    Titles and keywords are those of the same drawing in ``openclipart-svg``.
    """
    records = []
    base = root / _CLIPART
    for svg in sorted((base / "svg").rglob("*.svg")):
        relative = svg.relative_to(base / "svg").with_suffix("")
        png = base / "png" / relative.with_suffix(".png")
        if not png.is_file():
            continue
        title, keywords = _read_svg_words(svg)
        # The folder is the category in the collection, and for many files the only general word.
        keywords += tuple(
            part.replace("_", " ") for part in reversed(relative.parts[:-1]) if part != "unsorted"
        )
        record = ImageRecord(
            png, title, keywords, f"openclipart-png:{relative.as_posix()}", _split_name(relative.name)
        )
        if not is_unfit(record):
            records.append(record)
    return records


def read_extra_images(root: Path) -> list[ImageRecord]:
    """Return the images of other packages, for training only: emoji and game icons."""
    return [record for record in (*_read_noto(root), *_read_iconify(root)) if not is_unfit(record)]


def is_unfit(record: ImageRecord) -> bool:
    """Return whether title, keywords or path contain an unsuitable word."""
    words = " ".join([record.title, *record.keywords, record.source, record.name])
    return _UNFIT.search(re.sub(r"[\W_]+", " ", words).lower()) is not None


def decode(record: ImageRecord, size: int) -> "Image.Image | None":
    """Decode an image to RGBA, crop transparent borders, and downscale it to `size` pixels.

    Returns:
        None if the image is broken, empty or too large.
    """
    try:
        with Image.open(record.path if record.svg is None else _rasterise(record.svg)) as image:
            if image.width * image.height > _MAX_PIXELS:
                return None
            rgba = image.convert("RGBA")
    except (OSError, ValueError, Image.DecompressionBombError, subprocess.CalledProcessError):
        return None
    # Many drawings were exported together with an empty page around them.
    box = rgba.getchannel("A").getbbox()
    if box is None:
        return None
    # "RGBa" is premultiplied: downscaling RGBA would mix in the hidden colours of transparent
    # pixels.
    rgba = rgba.crop(box).convert("RGBa")
    rgba.thumbnail((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return rgba.convert("RGBA")


def _rasterise(svg: str) -> io.BytesIO:
    command = ["rsvg-convert", "--width=128", "--height=128", "--keep-aspect-ratio"]
    return io.BytesIO(subprocess.run(command, input=svg.encode(), capture_output=True, check=True).stdout)


def _read_svg_words(svg: Path) -> tuple[str, tuple[str, ...]]:
    """Read title and keywords from an SVG's RDF, by regular expression: many are malformed."""
    text = svg.read_text(encoding="utf-8", errors="replace")
    head = text[max(text.find("<metadata"), 0) :]
    found = _TITLE.search(head)
    title = _SIGNED.sub("", _strip_markup(found.group(1))) if found else ""
    keywords = [_strip_markup(word).replace("_", " ") for word in _KEYWORD.findall(head)]
    kept = tuple(word for word in keywords if not _JUNK_KEYWORD.match(word))
    return title or _split_name(svg.stem), kept


def _strip_markup(text: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", text))).strip()


def _split_name(filename: str) -> str:
    """Return the words of a file name: ``blue_eye_valkhof_`` -> ``blue eye valkhof``."""
    words = re.sub(r"([a-z])([A-Z])", r"\1 \2", filename)
    return re.sub(r"[\W\d_]+", " ", words).strip().lower()


def _read_noto(root: Path) -> Iterator[ImageRecord]:
    """Yield Noto emoji with the names and keywords of the gemojione index."""
    gems = root / _GEMS
    for index in sorted(gems.glob("gemojione-*/config/index.json")):
        entries = json.loads(index.read_text(encoding="utf-8"))
        for key in sorted(entries):
            entry = entries[key]
            # Of one drawing in five skin tones, only the neutral one is used.
            if re.search(r"_tone[1-5]", key):
                continue
            keywords = _filter_keywords(entry)
            for folder in sorted(gems.glob("tanuki_emoji-*/app/assets/images/tanuki_emoji")):
                png = folder / f"emoji_u{entry['unicode'].lower().replace('-', '_')}.png"
                if png.is_file():
                    source = f"ruby-tanuki-emoji:{key}"
                    yield ImageRecord(png, entry["name"], keywords, source, key.replace("_", " "))


def _filter_keywords(entry: dict[str, Any]) -> tuple[str, ...]:
    """Return an emoji's keywords without unsuitable ones.

    The index has "sex" as a keyword of bananas, so here the word is dropped rather than the image.
    """
    return tuple(word for word in (*entry["keywords"], entry["category"]) if not _UNFIT.search(word.lower()))


def _read_iconify(root: Path) -> Iterator[ImageRecord]:
    """Yield icons from npm packages; emoji get the keywords of the gemojione index."""
    keywords: dict[str, tuple[str, ...]] = {}
    for index in sorted((root / _GEMS).glob("gemojione-*/config/index.json")):
        for entry in json.loads(index.read_text(encoding="utf-8")).values():
            keywords[title_stem(entry["name"])] = _filter_keywords(entry)
    for icons in sorted((root / _ICONIFY).glob("*/icons.json")):
        data = json.loads(icons.read_text(encoding="utf-8"))
        for key, icon in sorted(data["icons"].items()):
            if _VARIANT.search(key):
                continue
            width, height = (icon.get(side, data.get(side, 16)) for side in ("width", "height"))
            box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
            svg = f'<svg xmlns="{_SVG}" xmlns:xlink="{_XLINK}" viewBox="{box}">{icon["body"]}</svg>'
            name = key.replace("-", " ")
            source = f"@iconify-json/{data['prefix']}:{key}"
            yield ImageRecord(icons, name, keywords.get(title_stem(name), ()), source, name, svg)
