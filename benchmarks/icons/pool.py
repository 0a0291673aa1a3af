"""Build tars of icons and their names: download, render, split, plant wrong captions.

Reads npm's `@iconify/json` at a pinned version; writes `OUT/{teacher,pool,choosing,testing}/*.tar`
in img2dataset's layout (`{key}.png`, `.txt`, `.json`) and `OUT/pool.json` with version, counts and
the checksum of each tar. Invariants: the same package and versions give the same bytes; a set, with
its family, is in one split; no test image has the bytes of an image of the teacher or the pool; wrong
captions are planted in the pool alone, and only the json names them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import tarfile
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.icons import sets
from benchmarks.icons.sets import Split
from d2prune import store
from d2prune.errors import UserError
from d2prune.inputs.tar.write import END_OF_ARCHIVE, member_header, padding

PIXELS = 48
"""Width and height of a rendered icon."""
WRONG = 0.3
"""Share of the pool's pairs with the caption of another icon."""
SEED = 0
_PER_SHARD = 10_000
_RENDERED_AT_ONCE = 500


@dataclass(frozen=True)
class Icon:
    """An icon of a set.

    Attributes:
        prefix: name of the set.
        name: name of the icon in the set.
        svg: the drawing.
    """

    prefix: str
    name: str
    svg: str

    @property
    def uid(self) -> str:
        """32 hex digits, a hash of both names."""
        return hashlib.blake2b(f"{self.prefix}:{self.name}".encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Pair:
    """A rendered icon with a caption.

    Attributes:
        uid: of the icon.
        prefix: name of its set.
        png: the image.
        own: its own caption.
        caption: the caption in the tar, wrong if it is another icon's.
    """

    uid: str
    prefix: str
    png: bytes
    own: str
    caption: str

    @property
    def is_wrong(self) -> bool:
        """Whether the caption is another icon's."""
        return self.caption != self.own


def download(package: Path) -> None:
    """Download the package to a file, unless it is there; compare its checksum.

    Raises:
        UserError: the file is not the pinned version.
    """
    if not package.exists():
        with urllib.request.urlopen(sets.URL, timeout=600) as response:
            store.write_bytes(str(package), response.read())
    found = hashlib.sha256(package.read_bytes()).hexdigest()
    if found != sets.SHA256:
        raise UserError(
            f"{package}: found SHA-256 {found}; expected {sets.SHA256} of {sets.PACKAGE} {sets.VERSION}"
        )


def read_icons(package: Path) -> list[Icon]:
    """Return the icons of all usable sets, sorted by set and name."""
    with tarfile.open(package) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar if m.name.endswith(".json")}  # type: ignore[union-attr]
    collections = json.loads(files["package/collections.json"])
    icons = []
    for prefix in sorted(collections):
        if sets.is_usable(collections[prefix]):
            icons += _parse_set(json.loads(files[f"package/json/{prefix}.json"]))
    return icons


def read_set(package: Path, prefix: str) -> list[Icon]:
    """Return the icons of one set of the package, sorted by name."""
    with tarfile.open(package) as tar:
        return list(_parse_set(json.load(tar.extractfile(f"package/json/{prefix}.json"))))  # type: ignore[arg-type]


def render(icons: Sequence[Icon], workers: int = 1, pixels: int = PIXELS) -> list[bytes]:
    """Return each icon as a square PNG on white; empty if it does not render."""
    parts = [[icon.svg for icon in icons[i : i + _RENDERED_AT_ONCE]]
             for i in range(0, len(icons), _RENDERED_AT_ONCE)]  # fmt: skip
    if workers == 1:
        return [png for part in parts for png in _render_part(part, pixels)]
    with ProcessPoolExecutor(workers) as pool:
        return [
            png for part in pool.map(functools.partial(_render_part, pixels=pixels), parts) for png in part
        ]


def split(icons: Iterable[Icon], images: Iterable[bytes]) -> dict[Split, list[Pair]]:
    """Return the pairs of each split, in a seeded random order, with their own captions.

    Leaves out icons without an image or a caption, and test icons whose image is also an image of the
    teacher or the pool.
    """
    pairs: dict[Split, list[Pair]] = {name: [] for name in sets.SPLITS}
    for icon, png in zip(icons, images, strict=True):
        text = sets.caption_of(icon.name)
        if png and text:
            pairs[sets.split_of(icon.prefix)].append(Pair(icon.uid, icon.prefix, png, text, text))
    seen = {pair.png for name in ("teacher", "pool") for pair in pairs[name]}  # type: ignore[index]
    for name in ("choosing", "testing"):
        pairs[name] = [pair for pair in pairs[name] if pair.png not in seen]  # type: ignore[index]
    rng = np.random.default_rng(SEED)
    return {name: [part[row] for row in rng.permutation(len(part))] for name, part in pairs.items()}


def plant(pairs: Sequence[Pair], share: float = WRONG) -> list[Pair]:
    """Exchange the captions of a seeded random share of the pairs.

    Of two shares, the pairs of the smaller one are among those of the larger. A pair whose exchange
    would leave it with an equal caption keeps its own.
    """
    rng = np.random.default_rng(SEED)
    swapped = rng.permutation(len(pairs))[: round(share * len(pairs))]
    planted = list(pairs)
    # Each gets the caption of the next in the random order, which makes one cycle.
    for row, donor in zip(swapped, np.roll(swapped, -1), strict=True):
        planted[row] = replace(pairs[row], caption=pairs[donor].own)
    return planted


def write(pairs: Sequence[Pair], folder: Path, pixels: int = PIXELS) -> dict[str, str]:
    """Write tars of pairs and return the SHA-256 of each by name."""
    checksums = {}
    for shard, start in enumerate(range(0, len(pairs), _PER_SHARD)):
        blocks = [
            block
            for row, pair in enumerate(pairs[start : start + _PER_SHARD])
            for block in _sample_blocks(f"{shard:05d}{row:04d}", pair, pixels)
        ]
        content = b"".join([*blocks, END_OF_ARCHIVE])
        name = f"{shard:05d}.tar"
        store.write_bytes(str(folder / name), content)
        checksums[name] = hashlib.sha256(content).hexdigest()
    return checksums


def build(out: Path, workers: int = 1, share: float = WRONG, limit: int | None = None) -> dict[str, Any]:
    """Build all tars below a folder and return what `pool.json` records.

    Args:
        out: the folder; one that holds the tars of the same version is left unchanged.
        workers: processes that render.
        share: of the pool's pairs that get a wrong caption.
        limit: use this many random pairs of the pool and the teacher, and a third for each test.
    """
    wanted = {"package": sets.PACKAGE, "version": sets.VERSION, "wrong": share, "limit": limit}
    record_file = out / "pool.json"
    if record_file.exists():
        record: dict[str, Any] = json.loads(record_file.read_text())
        if all(record[key] == value for key, value in wanted.items()):
            return record
        raise UserError(f"--out {out}: found a pool with other settings; expected a new folder")
    package = out / "iconify.tgz"
    download(package)
    icons = read_icons(package)
    if limit is not None:
        icons = sample(icons, limit)
    pairs = split(icons, render(icons, workers))
    record = wanted | {"icons": len(icons), "splits": {}}
    for name, part in pairs.items():
        planted = plant(part, share) if name == "pool" else part
        record["splits"][name] = {
            "pairs": len(planted),
            "wrong": sum(pair.is_wrong for pair in planted),
            "sets": dict(sorted(Counter(pair.prefix for pair in planted).items())),
            "tars": write(planted, out / name),
        }
    store.write_bytes(str(record_file), json.dumps(record, indent=1).encode())
    return record


def sample(icons: Sequence[Icon], limit: int) -> list[Icon]:
    """Return at most `limit` seeded random icons of the pool and the teacher, a third of it of each test."""
    rng = np.random.default_rng(SEED)
    by_split: dict[Split, list[int]] = {name: [] for name in sets.SPLITS}
    for row, icon in enumerate(icons):
        by_split[sets.split_of(icon.prefix)].append(row)
    kept: list[int] = []
    for name, rows in by_split.items():
        most = limit if name in ("teacher", "pool") else limit // 3
        kept += np.array(rows)[rng.permutation(len(rows))[:most]].tolist() if rows else []
    return [icons[row] for row in sorted(kept)]


def _parse_set(content: dict[str, Any]) -> Iterator[Icon]:
    """Yield the icons of a set in Iconify's JSON format, without its aliases."""
    prefix = content["prefix"]
    for name, icon in sorted(content["icons"].items()):
        box = [
            icon.get(key, content.get(key, default))
            for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
        ]
        names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        head = f'<svg {names} width="{PIXELS}" height="{PIXELS}"'
        yield Icon(prefix, name, f'{head} viewBox="{" ".join(map(str, box))}">{icon["body"]}</svg>')


def _render_part(drawings: Sequence[str], pixels: int) -> list[bytes]:
    try:
        from resvg_py import svg_to_bytes
    except ModuleNotFoundError:
        raise UserError("resvg-py is not installed: pip install resvg-py==0.5.0") from None
    # A system's fonts would make the images depend on the machine.
    draw = functools.partial(
        svg_to_bytes, background="white", width=pixels, height=pixels, skip_system_fonts=True
    )
    blank = bytes(draw(svg_string=_BLANK))
    images = []
    for svg in drawings:
        try:
            png = bytes(draw(svg_string=svg))
        except ValueError:
            png = b""
        images.append(b"" if png == blank else png)
    return images


_BLANK = f'<svg xmlns="http://www.w3.org/2000/svg" width="{PIXELS}" height="{PIXELS}"/>'


def _sample_blocks(key: str, pair: Pair, pixels: int) -> Iterator[bytes]:
    record = {
        "uid": pair.uid, "key": key, "caption": pair.caption, "set": pair.prefix,
        "width": pixels, "height": pixels, "planted_wrong": pair.is_wrong, "own_caption": pair.own,
    }  # fmt: skip
    members = (("png", pair.png), ("txt", pair.caption.encode()), ("json", json.dumps(record).encode()))
    for extension, content in members:
        yield from (member_header(f"{key}.{extension}", len(content)), content, padding(len(content)))


def read(folder: Path) -> Iterator[tuple[bytes, str, dict[str, Any]]]:
    """Yield image, caption and json of each sample of the tars in a folder, in order."""
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            while members := [tar.next() for _ in range(3)]:
                if members[0] is None:
                    break
                png, text, record = (tar.extractfile(m).read() for m in members)  # type: ignore[union-attr,arg-type]
                yield png, text.decode(), json.loads(record)


def wrong_of(records: Sequence[dict[str, Any]]) -> NDArray[np.bool_]:
    """Return which samples have a planted caption, bool [N]."""
    return np.array([record["planted_wrong"] for record in records], bool)
