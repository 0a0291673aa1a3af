"""Small pools of made-up pictures, and what a folder holds."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "bar", "cross")
COLOURS = {"red": (220, 40, 40), "green": (40, 160, 60), "blue": (50, 80, 210), "yellow": (230, 200, 40)}


def draw(shape: str, colour: str, seed: int) -> bytes:
    """A JPEG of a coloured shape somewhere on a noisy ground."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(190, 255, (48, 48, 3), dtype=np.uint8)
    image = Image.fromarray(ground)
    pen = ImageDraw.Draw(image)
    x, y, r = (int(value) for value in rng.integers((8, 8, 8), (28, 28, 16)))
    boxes = {"circle": [x, y, x + r, y + r], "square": [x, y, x + r, y + r], "bar": [x, y, x + 2 * r, y + 4]}
    if shape == "circle":
        pen.ellipse(boxes[shape], fill=COLOURS[colour])
    elif shape == "cross":
        pen.rectangle([x, y + r // 2, x + r, y + r // 2 + 4], fill=COLOURS[colour])
        pen.rectangle([x + r // 2, y, x + r // 2 + 4, y + r], fill=COLOURS[colour])
    else:
        pen.rectangle(boxes[shape], fill=COLOURS[colour])
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """One member, at a constant time."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def write_pool(folder: Path, shards: int = 4, samples: int = 40) -> Path:
    """`shards` tars of `samples` image-text pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:08d}.tar", "w") as tar:
            for index in range(samples):
                shape, colour = str(rng.choice(SHAPES)), str(rng.choice(list(COLOURS)))
                key = f"{shard:05d}{index:04d}"
                uid = f"{int(rng.integers(2**62)):016x}{shard:08x}{index:08x}"
                add(tar, f"{key}.jpg", draw(shape, colour, int(rng.integers(2**31))))
                add(tar, f"{key}.txt", f"a {colour} {shape}".encode())
                record = {"uid": uid, "colour": colour, "beauty": int(rng.integers(0, 100)) / 10}
                add(tar, f"{key}.json", json.dumps(record).encode())
    return folder


def tree(folder: Path | str) -> dict[str, bytes]:
    """Every file below a folder with its bytes, except the lease, which changes with every run."""
    root = Path(folder)
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and ".lease" not in path.parts]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}
