"""The data of the image-text benchmark: clip art with planted mismatches and copies; a test set.

Reads Debian's Open Clip Art below a root folder, or the bundled pool; writes the downscaled
drawings to a cache. Invariants: no content group (tools/groups.py) has drawings in both the pool
and the test set, and every drawing of the test set has its own caption.
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
from tools.dataset import ImageSet, load, on_white
from tools.make_pool import permute_across_groups

Int64 = NDArray[np.int64]

PIXELS = 80
"""Width and height to which drawings are downscaled: the input size of the trunk that embeds them."""

# WRONG: share of the drawings whose captions are swapped. COPIES: share of copies in the pool.
# COPIES_TAIL: the r-th most copied drawing is copied in proportion to r**-COPIES_TAIL, which gives
# about sixty copies of the first and none of most.
WRONG, COPIES, COPIES_TAIL = 0.3, 0.3, 0.8
# Limit on the drawings of one content group, as in the bundled pool: some titles have hundreds.
MOST_OF_A_GROUP = 40
TESTED = 600
SEED = 1


@dataclass(frozen=True)
class Drawings:
    """Drawings with captions.

    Attributes:
        images: uint8 [N, PIXELS, PIXELS, 3].
        captions: N captions.
        groups: int64 [N], the content group of each.
        categories: N names, the top folder of each in the collection.
    """

    images: NDArray[np.uint8]
    captions: list[str]
    groups: Int64
    categories: list[str]

    def take(self, rows: Int64) -> Drawings:
        """Return the drawings at `rows`."""
        names = ([self.captions[row] for row in rows], [self.categories[row] for row in rows])
        return Drawings(self.images[rows], names[0], self.groups[rows], names[1])


@dataclass(frozen=True)
class NoisyPool:
    """The pool that subsets are chosen from.

    Attributes:
        drawings: the pairs, including copies and wrong captions.
        original: int64 [N], the number of the drawing in each image; equal for copies.
        wrong: bool [N], whether the caption is that of another drawing.
    """

    drawings: Drawings
    original: Int64
    wrong: NDArray[np.bool_]


def clip_art(root: Path, cache: Path) -> tuple[Drawings, Drawings]:
    """Return pool and test set from Debian's openclipart-png and openclipart-svg.

    Args:
        root: folder with the unpacked packages.
        cache: folder for the downscaled drawings, since decoding the large PNGs takes minutes.

    Raises:
        UserError: the folder does not contain the packages.
    """
    stored = [cache / "pool.npz", cache / "tested.npz"]
    if not all(path.exists() for path in stored):
        try:
            tested, rest = load(root, PIXELS, with_extra=False, pool_size=TESTED)
        except FileNotFoundError as error:
            raise UserError(f"--data {error}") from None
        for path, part in zip(
            stored, (_limit_groups(_downscale(rest), MOST_OF_A_GROUP), _downscale(tested)), strict=True
        ):
            sink = io.BytesIO()
            np.savez_compressed(sink, **dataclasses.asdict(part))
            store.write_bytes(str(path), sink.getvalue())
    pool, tested_part = map(_read_drawings, stored)
    return pool, tested_part


def bundled(limit: int = 480) -> tuple[Drawings, Drawings]:
    """Return pool and test set from the first clean samples of the bundled pool.

    A third of the content groups is the test set.
    """
    images, captions, groups, categories = [], [], [], []
    tars = sorted(str(path) for path in POOL_DIR.glob("*.tar"))
    for sample in webdataset.WebDataset(tars, shardshuffle=False):
        record = json.loads(sample["json"])
        if record["planted_mismatch"] or "planted_fault" in record:
            continue
        (blob,) = (sample[kind] for kind in ("jpg", "png", "webp") if kind in sample)
        images.append(_resize(Image.open(io.BytesIO(blob)).convert("RGB")))
        captions.append(sample["txt"].decode())
        groups.append(record["group"])
        categories.append(_parse_category(record["source"]))
        if len(images) == limit:
            break
    found = Drawings(np.stack(images), captions, np.array(groups), categories)
    names = np.random.default_rng(SEED).permutation(np.unique(found.groups))
    is_test = np.isin(found.groups, names[: len(names) // 3])
    return found.take(np.flatnonzero(~is_test)), found.take(np.flatnonzero(is_test))


def plant(clean: Drawings, seed: int = SEED) -> NoisyPool:
    """Permute a share of the captions, add altered copies, and shuffle the result.

    A copy is cropped by up to 6 % per side, brightened or darkened, and saved as a JPEG of quality
    40 to 80; its keywords are shuffled. A drawing with a wrong caption is copied together with that
    caption, as in a crawled pool.
    """
    rng = np.random.default_rng(seed)
    n = len(clean.captions)
    wrong_N = np.zeros(n, bool)
    swapped = np.sort(rng.permutation(n)[: round(WRONG * n)])
    wrong_N[swapped] = True
    captions = list(clean.captions)
    donors = swapped[permute_across_groups(clean.groups[swapped], rng)]
    for row, donor in zip(swapped, donors, strict=True):
        captions[row] = clean.captions[donor]
    # The first drawing of a random order is copied most.
    weights = np.arange(1, n + 1) ** -COPIES_TAIL
    sources = rng.permutation(n)[rng.choice(n, round(n * COPIES / (1 - COPIES)), p=weights / weights.sum())]
    images = np.concatenate([clean.images, np.stack([_alter(clean.images[row], rng) for row in sources])])
    captions += [_shuffle_keywords(captions[row], rng) for row in sources]
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
    """Return the first drawing of each content group, so that captions differ in retrieval."""
    return drawings.take(np.sort(np.unique(drawings.groups, return_index=True)[1]))


def common_categories(categories: Sequence[str], at_least: int) -> list[str]:
    """Return the categories with enough drawings, sorted, without `unsorted` and `special`."""
    counts = Counter(categories)
    return sorted(name for name, n in counts.items() if n >= at_least and name not in ("unsorted", "special"))


def _downscale(images: ImageSet) -> Drawings:
    pixels = np.stack([_resize(on_white(one)) for one in images.decoded])
    categories = [_parse_category(record.source) for record in images.records]
    return Drawings(pixels, list(map(caption, images.records)), images.groups, categories)


def _read_drawings(path: Path) -> Drawings:
    with np.load(path) as arrays:
        names = (arrays["captions"].tolist(), arrays["categories"].tolist())
        return Drawings(arrays["images"], names[0], arrays["groups"], names[1])


def _limit_groups(drawings: Drawings, most: int) -> Drawings:
    """Keep at most `most` random drawings of each content group."""
    order = np.random.default_rng(SEED).permutation(len(drawings.groups))
    seen: Counter[int] = Counter()
    rows = []
    for row in order.tolist():
        group = int(drawings.groups[row])
        seen[group] += 1
        if seen[group] <= most:
            rows.append(row)
    return drawings.take(np.sort(np.array(rows)))


def _parse_category(source: str) -> str:
    return source.partition(":")[2].split("/")[0].replace("_", " ")


def _resize(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC), np.uint8)


def _alter(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    left, top, right, bottom = rng.integers(0, round(0.06 * PIXELS) + 1, 4).tolist()
    image = Image.fromarray(pixels).crop((left, top, PIXELS - right, PIXELS - bottom))
    image = ImageEnhance.Brightness(image).enhance(float(rng.uniform(0.9, 1.1)))
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=int(rng.integers(40, 81)))
    return _resize(Image.open(sink).convert("RGB"))


def _shuffle_keywords(text: str, rng: np.random.Generator) -> str:
    title, *keywords = text.split(", ")
    shuffled: Any = rng.permutation(keywords) if keywords else ()
    return ", ".join([title, *map(str, shuffled)])
