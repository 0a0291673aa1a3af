"""Content groups of clip art, and their split into pool and training set.

Pure functions. Invariants: images with the same title, copies and numbered copies share a group; no
group, and no pair of near-copies, has members in both the pool and the training set.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Hashable, Iterable

import numpy as np
from PIL import Image

from tools.clipart import ImageRecord, title_stem

__all__ = ["content_groups", "difference_hash", "near_copies", "pool_and_training"]

# A few titles have hundreds of images ("Gramastar", "Part of the Flat Icon Collection"). Groups
# above the first limit are used for training only; of any other group, the pool takes at most the
# second, so that no motif dominates.
_MAX_GROUP_OF_POOL = 250
_MAX_FROM_GROUP = 40

_HASH_BITS = 128
# Maximum number of bits by which the hashes of near-copies differ; chosen by looking at pairs.
_NEAR_BITS = 8
# The hash of an almost uniform image has fewer ones or zeros and carries no information.
_MIN_TEXTURE_BITS = 16


def difference_hash(image: Image.Image) -> np.ndarray:
    """Return a 128-bit hash: whether grey increases to the right and downwards on a 9 x 9 grid.

    Args:
        image: RGBA, composited on white.

    Returns:
        uint8 array [16], packed bits.
    """
    white = Image.new("RGBA", image.size, "white")
    grey = Image.alpha_composite(white, image).convert("L")
    grid = np.asarray(grey.resize((9, 9), Image.Resampling.BOX), dtype=np.int16)
    # A step of 2 ignores rounding differences between exports in uniform areas.
    across = grid[:8, 1:] > grid[:8, :-1] + 2
    down = grid[1:, :8] > grid[:-1, :8] + 2
    return np.packbits(np.concatenate([across.ravel(), down.ravel()]))


def near_copies(hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the pairs of near-copies.

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


def content_groups(records: list[ImageRecord], hashes: np.ndarray) -> np.ndarray:
    """Number the content groups of Open Clip Art.

    Two images share a group if their titles are equal except for case, digits and punctuation, if
    their file names in one folder are equal up to the first digit (numbered copies), or if their
    hashes are equal; groups are closed transitively. Near-copies are not joined, because chains of
    them would connect half of the collection; :func:`pool_and_training` excludes them from the
    training set. Members of a series (flags, icons of a theme) have different titles and may be in
    different groups.

    Args:
        records: N images, sorted.
        hashes: their difference hashes, uint8 [N, 16].

    Returns:
        int64 [N]; the number of a group is the row of its first member.
    """
    parent = np.arange(len(records))

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
    for row, record in enumerate(records):
        folder, _, filename = record.source.partition(":")[2].rpartition("/")
        alike["hash", hashes[row].tobytes()].append(row)
        for key in ("title", title_stem(record.title)), (folder, title_stem(re.split(r"\d", filename)[0])):
            if key[1]:
                alike[key].append(row)
    for rows in alike.values():
        union(rows)
    return np.array([find(row) for row in range(len(records))])


def pool_and_training(
    records: list[ImageRecord], hashes: np.ndarray, groups: np.ndarray, pool_size: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split Open Clip Art by content group.

    The random order is that of a hash of the seed and the source, so that one image more or less in
    the collection changes the pool by that image only.

    Args:
        records: N images.
        hashes: uint8 [N, 16].
        groups: int64 [N], from :func:`content_groups`.
        pool_size: number of images in the pool.
        seed: decides which groups are in the pool.

    Returns:
        Rows of the pool, `pool_size` of them, and rows of the training set, both sorted. The other
        members of the pool's groups are in neither, and so are near-copies of images of the pool.
    """
    names, counts = np.unique(groups, return_counts=True)
    pool: list[int] = []
    taken = []
    order = [hashlib.sha256(f"{seed} {record.source}".encode()).digest() for record in records]
    for group in sorted(names[counts <= _MAX_GROUP_OF_POOL].tolist(), key=order.__getitem__):
        if len(pool) >= pool_size:
            break
        taken.append(group)
        members = sorted(np.flatnonzero(groups == group).tolist(), key=order.__getitem__)
        pool.extend(members[: min(_MAX_FROM_GROUP, pool_size - len(pool))])
    training = np.flatnonzero(~np.isin(groups, taken))
    copies = training[near_copies(hashes[training], hashes[pool])[:, 0]]
    training = np.setdiff1d(training, copies)
    return np.array(sorted(pool)), training
