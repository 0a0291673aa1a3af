"""A small pool with natural near-duplicates, and the configuration of a run over it."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw

from pipeline.config import RunConfig

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
                add(tar, f"{key}.json", json.dumps({"uid": uid}).encode())
    return folder


@pytest.fixture(scope="session")
def pool(tmp_path_factory):
    return write_pool(tmp_path_factory.mktemp("pool"))


@pytest.fixture
def settings(pool, tiny_model, tmp_path):
    """Plain values of a run's configuration; change them before `RunConfig.parse`."""
    return {
        "input": str(pool),
        "work_dir": str(tmp_path / "work"),
        "output": str(tmp_path / "output"),
        "embed": {"model": str(tiny_model), "batch_size": 16},
        "graph": {"n_neighbors": 4},
        "select": {"fraction": 0.3},
        "write": {"samples_per_shard": 10},
        "report": {"gallery": 4},
    }


@pytest.fixture
def configure(settings):
    """The configuration, with `section__key=value` changes."""

    def _configure(**changes: object) -> RunConfig:
        values = {name: dict(value) if isinstance(value, dict) else value for name, value in settings.items()}
        for name, value in changes.items():
            section, _, key = name.partition("__")
            if key:
                values.setdefault(section, {})[key] = value
            else:
                values[name] = value
        return RunConfig.parse(values, "test")

    return _configure


@pytest.fixture
def config_file(settings, tmp_path):
    """The same as a file, for the command line."""
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def tree(folder: Path | str) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    root = Path(folder)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
