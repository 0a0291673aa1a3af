"""Content groups of clip art, and which of them are the pool.

Pure functions of pictures and thumbnails. Invariant: pictures of one title, copies and numbered
copies share a group; a group is either in the pool's reach or in the training set's, never in both;
nor is a near-copy in both.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Hashable, Iterable

import numpy as np
from PIL import Image

from tools.clipart import Picture, stem

__all__ = ["content_groups", "difference_hash", "near_copies", "pool_and_training"]

# A few titles stand for hundreds of pictures ("Gramastar", "Part of the Flat Icon Collection"):
# such groups only teach, and of any other group the pool takes no more than keep it from crowding
# with one motif.
_MAX_DRAWN = 250
_MAX_TAKEN = 40

_HASH_BITS = 128
# Bits by which the hashes of near-copies differ at most; found by looking at pairs.
_NEAR_BITS = 8
# A hash with fewer ones or zeros is that of an almost plain picture and says nothing.
_MIN_TEXTURE_BITS = 16


def difference_hash(image: Image.Image) -> np.ndarray:
    """128 bits of a picture: whether grey rises from left to right and from top to bottom on a 9 x 9 grid.

    Args:
        image: RGBA; seen on white.

    Returns:
        uint8 array [16], packed bits.
    """
    white = Image.new("RGBA", image.size, "white")
    grey = Image.alpha_composite(white, image).convert("L")
    grid = np.asarray(grey.resize((9, 9), Image.Resampling.BOX), dtype=np.int16)
    # A step of 2 keeps the rounding of the exporter out of the plain areas.
    across = grid[:8, 1:] > grid[:8, :-1] + 2
    down = grid[1:, :8] > grid[:-1, :8] + 2
    return np.packbits(np.concatenate([across.ravel(), down.ravel()]))


def near_copies(hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Pairs of near-copies.

    Args:
        hashes: uint8 [N, 16].
        others: uint8 [M, 16].

    Returns:
        int64 [P, 2]: row in `hashes`, row in `others`.
    """
    ones = np.bitwise_count(hashes).sum(1)
    textured = (ones >= _MIN_TEXTURE_BITS) & (ones <= _HASH_BITS - _MIN_TEXTURE_BITS)
    pairs = []
    for row in range(len(hashes)):
        distance = np.bitwise_count(others ^ hashes[row]).sum(1)
        near = np.flatnonzero(distance <= (_NEAR_BITS if textured[row] else 0))
        pairs.append(np.stack([np.full_like(near, row), near], axis=1))
    return np.concatenate(pairs) if pairs else np.zeros((0, 2), np.int64)


def content_groups(pictures: list[Picture], hashes: np.ndarray) -> np.ndarray:
    """Number the content groups of Open Clip Art.

    Two pictures share a group if their titles agree without case, digits and punctuation, or their
    file names within one folder do up to the first digit (numbered copies), or their hashes are
    equal; and so on transitively. Near-copies would chain to half the collection, so they are not
    joined here but kept out of the training set by :func:`pool_and_training`. Members of a series
    (flags, icons of a theme) have different titles and may part.

    Args:
        pictures: N pictures, sorted.
        hashes: their difference hashes, uint8 [N, 16].

    Returns:
        int64 [N]; a group's number is the row of its first member.
    """
    parent = np.arange(len(pictures))

    def find(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = int(parent[row])
        return row

    def union(rows: Iterable[int]) -> None:
        roots = sorted({find(int(row)) for row in rows})
        for root in roots[1:]:
            parent[root] = roots[0]

    alike: dict[Hashable, list[int]] = defaultdict(list)
    for row, picture in enumerate(pictures):
        folder, _, filename = _relative(picture).rpartition("/")
        alike["hash", hashes[row].tobytes()].append(row)
        for key in ("title", stem(picture.title)), (folder, stem(re.split(r"\d", filename)[0])):
            if key[1]:
                alike[key].append(row)
    for rows in alike.values():
        union(rows)
    return np.array([find(row) for row in range(len(pictures))])


def pool_and_training(
    pictures: list[Picture], hashes: np.ndarray, groups: np.ndarray, pool_size: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split Open Clip Art by content group.

    Chance comes from a hash of the seed and a source, so that a picture more or less in the
    collection changes the pool by that picture.

    Args:
        pictures: N pictures.
        hashes: uint8 [N, 16].
        groups: int64 [N], from :func:`content_groups`.
        pool_size: pictures the pool shall have.
        seed: decides which groups go to the pool.

    Returns:
        Rows of the pool, `pool_size` of them, sorted; rows free for training, sorted. The rest of
        the pool's groups is in neither, nor is a near-copy of a picture of the pool.
    """
    names, counts = np.unique(groups, return_counts=True)
    pool: list[int] = []
    taken = []
    chance = [hashlib.sha256(f"{seed} {picture.source}".encode()).digest() for picture in pictures]
    for group in sorted(names[counts <= _MAX_DRAWN].tolist(), key=chance.__getitem__):
        if len(pool) >= pool_size:
            break
        taken.append(group)
        members = sorted(np.flatnonzero(groups == group).tolist(), key=chance.__getitem__)
        pool.extend(members[: min(_MAX_TAKEN, pool_size - len(pool))])
    training = np.flatnonzero(~np.isin(groups, taken))
    copies = training[near_copies(hashes[training], hashes[pool])[:, 0]]
    training = np.setdiff1d(training, copies)
    return np.array(sorted(pool)), training


def _relative(picture: Picture) -> str:
    return picture.source.partition(":")[2]
