"""The noisy pool of the image-text benchmark: clip art with planted mismatches and copies, and a clean test set.

Reads Debian's Open Clip Art below a root folder, or the bundled pool; keeps small squares of it in
a cache. Invariant: no content group (pipeline/d2prune/bundled/groups.py) has drawings in both the
pool and the test set, and the test set's captions are their own.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from d2prune import store
from d2prune.bundled import POOL_DIR
from d2prune.errors import UserError
from tools.clipart import caption
from tools.dataset import Pictures, load, on_white
from tools.make_pool import shuffled

Int64 = NDArray[np.int64]

PIXELS = 80
"""Side of the squares that drawings are kept as: what the trunk that embeds them takes."""

# Shares of the drawings whose captions are swapped, and of the pool that is copies; how unevenly
# drawings are copied (the r-th most copied in proportion to r**-COPIES_TAIL: from some sixty times
# to mostly never).
WRONG, COPIES, COPIES_TAIL = 0.3, 0.3, 0.8
# Drawings of one content group in the pool, as in the bundled pool: a few titles stand for hundreds.
MOST_OF_A_GROUP = 40
TESTED = 600
SEED = 1


@dataclass(frozen=True)
class Drawings:
    """Clean pairs: uint8 images [N, PIXELS, PIXELS, 3], captions, content groups int64 [N], top folders."""

    images: NDArray[np.uint8]
    captions: list[str]
    groups: Int64
    categories: list[str]

    def take(self, rows: Int64) -> Drawings:
        """Those at `rows`."""
        names = ([self.captions[row] for row in rows], [self.categories[row] for row in rows])
        return Drawings(self.images[rows], names[0], self.groups[rows], names[1])


@dataclass(frozen=True)
class NoisyPool:
    """What is chosen from.

    Attributes:
        drawings: the pairs, copies and wrong captions among them.
        original: int64 [N], the drawing that each shows; equal for copies.
        wrong: bool [N], whether the caption is another drawing's.
    """

    drawings: Drawings
    original: Int64
    wrong: NDArray[np.bool_]


def clip_art(root: Path, cache: Path) -> tuple[Drawings, Drawings]:
    """(to choose from, to test on) of Debian's openclipart-png and openclipart-svg.

    Args:
        root: where they are unpacked.
        cache: folder to keep the small squares in, as decoding the large PNGs takes minutes.

    Raises:
        UserError: they are not there.
    """
    stored = [cache / "pool.npz", cache / "tested.npz"]
    if not all(path.exists() for path in stored):
        try:
            tested, rest = load(root, PIXELS, with_extra=False, pool_size=TESTED)
        except FileNotFoundError as error:
            raise UserError(f"--data {root}: {error}") from None
        for path, part in zip(
            stored, (_at_most(_drawings(rest), MOST_OF_A_GROUP), _drawings(tested)), strict=True
        ):
            sink = io.BytesIO()
            np.savez_compressed(sink, **dataclasses.asdict(part))
            store.write_bytes(str(path), sink.getvalue())
    pool, tested_part = map(_stored, stored)
    return pool, tested_part


def bundled(limit: int = 480) -> tuple[Drawings, Drawings]:
    """The same of the bundled pool's first honest samples: a third of the content groups is tested on."""
    images, captions, groups, categories = [], [], [], []
    tars = sorted(str(path) for path in POOL_DIR.glob("*.tar"))
    for sample in webdataset.WebDataset(tars, shardshuffle=False):
        record = json.loads(sample["json"])
        if record["planted_mismatch"] or "planted_fault" in record:
            continue
        (blob,) = (sample[kind] for kind in ("jpg", "png", "webp") if kind in sample)
        images.append(_square(Image.open(io.BytesIO(blob)).convert("RGB")))
        captions.append(sample["txt"].decode())
        groups.append(record["group"])
        categories.append(_category(record["source"]))
        if len(images) == limit:
            break
    found = Drawings(np.stack(images), captions, np.array(groups), categories)
    names = np.random.default_rng(SEED).permutation(np.unique(found.groups))
    is_test = np.isin(found.groups, names[: len(names) // 3])
    return found.take(np.flatnonzero(~is_test)), found.take(np.flatnonzero(is_test))


def plant(clean: Drawings, seed: int = SEED) -> NoisyPool:
    """Swap a share of the captions among themselves, add altered copies, put all in random order.

    A copy is cropped by up to 6 % a side, brightened or darkened and saved as a JPEG of quality 40
    to 80; its keywords stand in another order. A drawing with a wrong caption is copied with it, as
    a crawl finds it.
    """
    rng = np.random.default_rng(seed)
    n = len(clean.captions)
    wrong_N = np.zeros(n, bool)
    swapped = np.sort(rng.permutation(n)[: round(WRONG * n)])
    wrong_N[swapped] = True
    captions = list(clean.captions)
    for row, donor in zip(swapped, swapped[shuffled(clean.groups[swapped], rng)], strict=True):
        captions[row] = clean.captions[donor]
    # Rank 1 of a random order is copied most.
    weights = np.arange(1, n + 1) ** -COPIES_TAIL
    sources = rng.permutation(n)[rng.choice(n, round(n * COPIES / (1 - COPIES)), p=weights / weights.sum())]
    images = np.concatenate([clean.images, np.stack([_altered(clean.images[row], rng) for row in sources])])
    captions += [_reordered(captions[row], rng) for row in sources]
    original = np.concatenate([np.arange(n), sources])
    order = rng.permutation(len(original))
    kept = original[order]
    drawings = Drawings(
        images[order],
        [captions[row] for row in order],
        clean.groups[kept],
        [clean.categories[row] for row in kept],
    )
    return NoisyPool(drawings, kept, wrong_N[kept])


def one_per_group(drawings: Drawings) -> Drawings:
    """The first drawing of each content group: captions that differ, to retrieve among."""
    return drawings.take(np.sort(np.unique(drawings.groups, return_index=True)[1]))


def common_categories(categories: Sequence[str], at_least: int) -> list[str]:
    """Names that occur often enough to be classes, sorted; `unsorted` and `special` say nothing."""
    counts = Counter(categories)
    return sorted(name for name, n in counts.items() if n >= at_least and name not in ("unsorted", "special"))


def _drawings(pictures: Pictures) -> Drawings:
    images = np.stack([_square(on_white(one)) for one in pictures.decoded])
    records = pictures.pictures
    return Drawings(
        images, list(map(caption, records)), pictures.groups, [_category(one.source) for one in records]
    )


def _stored(path: Path) -> Drawings:
    with np.load(path) as arrays:
        names = (arrays["captions"].tolist(), arrays["categories"].tolist())
        return Drawings(arrays["images"], names[0], arrays["groups"], names[1])


def _at_most(drawings: Drawings, most: int) -> Drawings:
    order = np.random.default_rng(SEED).permutation(len(drawings.groups))
    seen: Counter[int] = Counter()
    rows = []
    for row in order.tolist():
        group = int(drawings.groups[row])
        seen[group] += 1
        if seen[group] <= most:
            rows.append(row)
    return drawings.take(np.sort(np.array(rows)))


def _category(source: str) -> str:
    return source.partition(":")[2].split("/")[0].replace("_", " ")


def _square(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC), np.uint8)


def _altered(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    left, top, right, bottom = rng.integers(0, round(0.06 * PIXELS) + 1, 4).tolist()
    image = Image.fromarray(pixels).crop((left, top, PIXELS - right, PIXELS - bottom))
    image = ImageEnhance.Brightness(image).enhance(float(rng.uniform(0.9, 1.1)))
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=int(rng.integers(40, 81)))
    return _square(Image.open(sink).convert("RGB"))


def _reordered(text: str, rng: np.random.Generator) -> str:
    title, *keywords = text.split(", ")
    shuffled_words: Any = rng.permutation(keywords) if keywords else ()
    return ", ".join([title, *map(str, shuffled_words)])
