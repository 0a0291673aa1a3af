"""Write the bundled pool.

    python -m tools.make_pool --root / --out pipeline/d2prune/bundled/pool

Reads Debian's ``openclipart-png`` and ``openclipart-svg``. Writes WebDataset tars ``{:08d}.tar``
whose samples have the members ``{key}.jpg|png|webp``, ``{key}.txt`` and ``{key}.json`` (``uid``,
``title``, ``source``, ``group``, which is equal for images of one content group,
``planted_mismatch``, and ``planted_fault`` if there is one). Captions and near-duplicates are those
of the collection, but a seeded share of the captions is replaced by that of an unrelated image, and
a few samples have faults that are common in crawled pools. Invariant: the same packages and seed
give the same samples in the same order.
"""

import argparse
import hashlib
import io
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import webdataset
from PIL import Image

from d2prune.bundled import POOL_DIR
from tools.clipart import caption
from tools.dataset import MAX_SIZE, SEED, DecodedImage, ImageSet, load, on_white

__all__ = ["FAULTS", "MISMATCH_SHARE", "Sample", "make_samples", "permute_across_groups", "write_pool"]

MISMATCH_SHARE = 0.15
FAULTS = ("truncated_image", "empty_caption", "missing_caption")
_FAULTS_EACH = 2
_SHARDS = 6
_SIZE = 112
# An int, since tarfile writes a pax header of 1 kB per member for a float.
_MTIME = 0

_log = logging.getLogger("tools.make_pool")


@dataclass(frozen=True)
class Sample:
    """One sample, encoded.

    Attributes:
        image: the encoded image.
        extension: ``jpg``, ``png`` or ``webp``.
        text: the caption; None if it is missing.
        record: content of the JSON member.
    """

    image: bytes
    extension: str
    text: "str | None"
    record: dict[str, str | int | bool]


def permute_across_groups(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a random permutation that maps every row to a row of another content group.

    Args:
        groups: int64 [N]; no group may have half of the rows or more.
        rng: random generator.

    Returns:
        int64 [N].
    """
    order = rng.permutation(len(groups))
    while (clash := np.flatnonzero(groups == groups[order])).size:
        partners = rng.integers(len(groups), size=clash.size)
        for row, partner in zip(clash, partners, strict=True):
            order[row], order[partner] = order[partner], order[row]
    return order


def make_samples(pool: ImageSet, seed: int = SEED) -> list[Sample]:
    """Encode the pool in random order and plant mismatches and faults.

    Args:
        pool: the images.
        seed: of the order, the mismatches, the faults and the image formats.
    """
    rng = np.random.default_rng(seed)
    pool = pool.take(rng.permutation(len(pool.records)))
    captions = [caption(entry) for entry in pool.records]
    mismatched = np.sort(rng.permutation(len(captions))[: round(MISMATCH_SHARE * len(captions))])
    # A permutation, so that the set of captions remains that of the collection.
    donors = mismatched[permute_across_groups(pool.groups[mismatched], rng)]
    texts = dict(enumerate(captions)) | {
        int(row): captions[donor] for row, donor in zip(mismatched, donors, strict=True)
    }
    matched = np.setdiff1d(np.arange(len(captions)), mismatched)
    faulty = rng.permutation(matched)[: len(FAULTS) * _FAULTS_EACH].tolist()
    faults = {row: FAULTS[index % len(FAULTS)] for index, row in enumerate(faulty)}
    planted = set(mismatched.tolist())
    samples = []
    for row, entry in enumerate(pool.records):
        record: dict[str, str | int | bool] = {
            "uid": hashlib.sha256(entry.source.encode()).hexdigest()[:32],
            "title": entry.title,
            "source": entry.source,
            "group": int(pool.groups[row]),
            "planted_mismatch": row in planted,
        }
        if row in faults:
            record["planted_fault"] = faults[row]
        image, extension = _encode_image(pool.decoded[row], rng)
        samples.append(_plant_fault(Sample(image, extension, texts[row], record), faults.get(row)))
    return samples


def write_pool(samples: list[Sample], folder: Path, shards: int = _SHARDS) -> int:
    """Write the samples to `shards` tars of about equal size and return their bytes in total."""
    folder.mkdir(parents=True, exist_ok=True)
    size = 0
    for shard, rows in enumerate(np.array_split(np.arange(len(samples)), shards)):
        path = folder / f"{shard:08d}.tar"
        # Owner and time are constant, so that equal samples give equal bytes.
        with webdataset.TarWriter(str(path), user="root", group="root", mode=0o644, mtime=_MTIME) as sink:
            for row in rows:
                sample = samples[row]
                members = {"__key__": f"{row:08d}", sample.extension: sample.image}
                if sample.text is not None:
                    members["txt"] = sample.text.encode()
                members["json"] = json.dumps(sample.record, ensure_ascii=False).encode()
                sink.write(members)
        size += path.stat().st_size
    return size


def _encode_image(decoded: DecodedImage, rng: np.random.Generator) -> tuple[bytes, str]:
    """Encode the image on a white square as JPEG, or at random as PNG or WebP."""
    image = on_white(decoded)
    webp = rng.random() < 0.1
    png = rng.random() < 0.3
    buffer = io.BytesIO()
    if webp:
        image.save(buffer, "WEBP", quality=75, method=6)
        return buffer.getvalue(), "webp"
    if png:
        image.quantize(64, method=Image.Quantize.MEDIANCUT).save(buffer, "PNG", optimize=True)
        return buffer.getvalue(), "png"
    image.save(buffer, "JPEG", quality=75, optimize=True)
    return buffer.getvalue(), "jpg"


def _plant_fault(sample: Sample, fault: "str | None") -> Sample:
    if fault == "truncated_image":
        return Sample(sample.image[: len(sample.image) // 3], sample.extension, sample.text, sample.record)
    if fault == "empty_caption":
        return Sample(sample.image, sample.extension, "", sample.record)
    if fault == "missing_caption":
        return Sample(sample.image, sample.extension, None, sample.record)
    return sample


def main() -> None:
    """Read the clip art and write the pool."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--root", type=Path, default=Path("/"), help="folder with the unpacked Debian packages (%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=POOL_DIR, help="folder for the tars")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pool, _ = load(args.root, min(_SIZE, MAX_SIZE), with_extra=False)
    samples = make_samples(pool)
    size = write_pool(samples, args.out)
    _log.info("%d samples, %.2f MB", len(samples), size / 1e6)


if __name__ == "__main__":
    main()
