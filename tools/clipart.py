"""Read captioned pictures from Debian's clip art and from emoji and icon packages.

Reads the unpacked packages below a root folder ("/" where they are installed); writes nothing. Gives
:class:`Picture` records in sorted order, and decodes them. Open Clip Art is the pool; the other
sources only teach the demo model. Invariant: the records depend on the files alone.
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

__all__ = ["Picture", "caption", "decode", "extra_pictures", "open_clip_art", "stem", "unfit"]

_CLIPART = "usr/share/openclipart"
_GEMS = "usr/share/rubygems-integration/all/gems"
_ICONIFY = "node_modules/@iconify-json"

_TITLE = re.compile(r"<dc:title[^>]*>(.*?)</dc:title>", re.DOTALL)
_KEYWORD = re.compile(r"<rdf:li[^>]*>(.*?)</rdf:li>", re.DOTALL)
_SIGNED = re.compile(r"^clip ?art by .*? - ", re.IGNORECASE)
# Symbols of hate, violence, nudity, other people's characters, and a series that shows an
# exporter's error message: whole words, "*" for any ending. Written by looking at all of the pool.
_UNFIT_WORDS = (
    *(
        "swastika*",
        "hakenkreuz*",
        "sunwheel*",
        "zonnerad*",
        "schwarze sonne",
        "black sun",
        "wolfsangel",
        "totenkopf",
    ),
    *(
        "lauburu",
        "nazi*",
        "neonazi*",
        "hitler*",
        "ss",
        "reich*",
        "wehrmacht",
        "fascis*",
        "mussolini",
        "kkk",
        "ku klux",
    ),
    *("white power", "celtic cross", "confedera*", "dixie", "mississippi", "historic south africa", "brozo"),
    *("gallows", "little boy at*", "fat man at*", "atomic bomb", "what have you done"),
    *(
        "nude*",
        "naked",
        "sex",
        "sexy",
        "sexual*",
        "erot*",
        "porn*",
        "stripper*",
        "striptease",
        "genital*",
        "penis*",
    ),
    *(
        "vagina*",
        "babe",
        "condom",
        "condoms",
        "fetish*",
        "bondage",
        "prostitut*",
        "rape",
        "pimp",
        "female silhouette",
    ),
    *("eris", "mermaid*", "daedalus*"),
    *("my lovely baby", "domo kun", "saku robot", "stylized yoga"),
)
_UNFIT = re.compile(rf"\b({'|'.join(_UNFIT_WORDS)})\b".replace("*", r"\w*"))
# What the collection's tooling left among the keywords.
_JUNK_KEYWORD = re.compile(r"^(hash|unsorted|0x[0-9a-f]+|.*\(0x.*|)$", re.IGNORECASE)

# Skin tones and hair of one emoji.
_VARIANT = re.compile(r"-(light|medium|dark)(-|$)|-skin-tone|-(red|curly|white)-hair|-bald")
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"

# A few drawings were exported at more than 100 megapixels; they are not worth the minute they take.
_MAX_PIXELS = 40_000_000


@dataclass(frozen=True)
class Picture:
    """One picture and its words.

    Attributes:
        path: An image that Pillow opens.
        title: The title its author gave, or the name it stands under; may be vague.
        keywords: Further words, most general last where the source orders them; may be empty.
        source: Debian package and path within the collection.
        name: Words of the file name, for titles that say nothing.
        svg: The drawing itself where it is a member of `path` and not a file; needs ``rsvg-convert``.
    """

    path: Path
    title: str
    keywords: tuple[str, ...]
    source: str
    name: str
    svg: "str | None" = None


def caption(picture: Picture, max_keywords: int = 6) -> str:
    """The picture's caption: its title, then at most `max_keywords` keywords that it does not hold already."""
    words = [picture.title]
    seen = picture.title.lower()
    for keyword in picture.keywords:
        if keyword.lower().removesuffix("s") not in seen:
            words.append(keyword)
            seen += " " + keyword.lower()
    return ", ".join(words[: max_keywords + 1])


def stem(text: str) -> str:
    """What is left of a title or file name without case, digits and punctuation: equal for members of a series."""
    return " ".join(re.findall(r"[^\W\d_]+", text.lower()))


def open_clip_art(root: Path) -> list[Picture]:
    """What is fit of ``openclipart-png``, sorted by path, each with the words of its twin in ``openclipart-svg``."""
    pictures = []
    base = root / _CLIPART
    for svg in sorted((base / "svg").rglob("*.svg")):
        relative = svg.relative_to(base / "svg").with_suffix("")
        png = base / "png" / relative.with_suffix(".png")
        if not png.is_file():
            continue
        title, keywords = _svg_words(svg)
        # The folder is the collection's own category, for many files the only general word they have.
        keywords += tuple(
            part.replace("_", " ") for part in reversed(relative.parts[:-1]) if part != "unsorted"
        )
        picture = Picture(
            png, title, keywords, f"openclipart-png:{relative.as_posix()}", _name(relative.name)
        )
        if not unfit(picture):
            pictures.append(picture)
    return pictures


def extra_pictures(root: Path) -> list[Picture]:
    """Pictures of other packages, for training only: emoji in three styles, and game icons."""
    return [picture for picture in (*_noto(root), *_iconify(root)) if not unfit(picture)]


def unfit(picture: Picture) -> bool:
    """Whether a word of the title, the keywords or the path is on the list of what has no place in a demo."""
    words = " ".join([picture.title, *picture.keywords, picture.source, picture.name])
    return _UNFIT.search(re.sub(r"[\W_]+", " ", words).lower()) is not None


def decode(picture: Picture, size: int) -> "Image.Image | None":
    """The picture as RGBA, cut to what is not transparent and shrunk to at most `size` pixels on its longer side.

    Returns:
        None if it is broken, empty or too large.
    """
    try:
        with Image.open(picture.path if picture.svg is None else _rasterised(picture.svg)) as image:
            if image.width * image.height > _MAX_PIXELS:
                return None
            rgba = image.convert("RGBA")
    except (OSError, ValueError, Image.DecompressionBombError, subprocess.CalledProcessError):
        return None
    # Many drawings were exported with the page they lie on.
    box = rgba.getchannel("A").getbbox()
    if box is None:
        return None
    # "RGBa" is premultiplied: shrinking plain RGBA would bleed the hidden colour of transparent pixels.
    rgba = rgba.crop(box).convert("RGBa")
    rgba.thumbnail((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return rgba.convert("RGBA")


def _rasterised(svg: str) -> io.BytesIO:
    command = ["rsvg-convert", "--width=128", "--height=128", "--keep-aspect-ratio"]
    return io.BytesIO(subprocess.run(command, input=svg.encode(), capture_output=True, check=True).stdout)


def _svg_words(svg: Path) -> tuple[str, tuple[str, ...]]:
    """Title and keywords from an SVG's RDF; by regular expression, since many of the files are not well-formed."""
    text = svg.read_text(encoding="utf-8", errors="replace")
    head = text[max(text.find("<metadata"), 0) :]
    found = _TITLE.search(head)
    title = _SIGNED.sub("", _clean(found.group(1))) if found else ""
    keywords = [_clean(word).replace("_", " ") for word in _KEYWORD.findall(head)]
    kept = tuple(word for word in keywords if not _JUNK_KEYWORD.match(word))
    return title or _name(svg.stem), kept


def _clean(text: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", text))).strip()


def _name(filename: str) -> str:
    """The words of a file name: ``blue_eye_kilian_valkhof_`` -> ``blue eye kilian valkhof``."""
    words = re.sub(r"([a-z])([A-Z])", r"\1 \2", filename)
    return re.sub(r"[\W\d_]+", " ", words).strip().lower()


def _noto(root: Path) -> Iterator[Picture]:
    """Noto emoji, under the names and keywords that the gemojione index has for them."""
    gems = root / _GEMS
    for index in sorted(gems.glob("gemojione-*/config/index.json")):
        entries = json.loads(index.read_text(encoding="utf-8"))
        for key in sorted(entries):
            entry = entries[key]
            # Five skin tones of one drawing are one picture.
            if re.search(r"_tone[1-5]", key):
                continue
            keywords = _fit_keywords(entry)
            for folder in sorted(gems.glob("tanuki_emoji-*/app/assets/images/tanuki_emoji")):
                png = folder / f"emoji_u{entry['unicode'].lower().replace('-', '_')}.png"
                if png.is_file():
                    source = f"ruby-tanuki-emoji:{key}"
                    yield Picture(png, entry["name"], keywords, source, key.replace("_", " "))


def _fit_keywords(entry: dict[str, Any]) -> tuple[str, ...]:
    """An emoji's keywords; the index says "sex" of bananas, so here it is the unfit word that goes, not the picture."""
    return tuple(word for word in (*entry["keywords"], entry["category"]) if not _UNFIT.search(word.lower()))


def _iconify(root: Path) -> Iterator[Picture]:
    """Icon sets from npm, one JSON of SVG bodies each; emoji get the keywords that the gemojione index has for them."""
    keywords: dict[str, tuple[str, ...]] = {}
    for index in sorted((root / _GEMS).glob("gemojione-*/config/index.json")):
        for entry in json.loads(index.read_text(encoding="utf-8")).values():
            keywords[stem(entry["name"])] = _fit_keywords(entry)
    for icons in sorted((root / _ICONIFY).glob("*/icons.json")):
        data = json.loads(icons.read_text(encoding="utf-8"))
        for key, icon in sorted(data["icons"].items()):
            if _VARIANT.search(key):
                continue
            width, height = (
                icon.get("width", data.get("width", 16)),
                icon.get("height", data.get("height", 16)),
            )
            box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
            svg = f'<svg xmlns="{_SVG}" xmlns:xlink="{_XLINK}" viewBox="{box}">{icon["body"]}</svg>'
            name = key.replace("-", " ")
            source = f"@iconify-json/{data['prefix']}:{key}"
            yield Picture(icons, name, keywords.get(stem(name), ()), source, name, svg)
