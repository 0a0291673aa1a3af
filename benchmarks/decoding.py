r"""Decoding: images per CPU second, memory, closeness of pixels, and the path from tar to batch.

    python -m benchmarks.decoding --folder /tmp/bench --photos /usr/share/backgrounds/mate/nature

Crops photos (Debian's mate-backgrounds) to about 500 x 400 pixels and prints a markdown page. All ways
alternate in rounds; tables show medians. The parts (`--parts`):

- `rates`: images per CPU second of a decode process (its parent's share included) for each format:
  Pillow alone, as before (`pillow_decoder.py`); `exact`; `device`.
- `steps`: time of each step for one JPEG, by Pillow and now.
- `process`: start and memory of a decode process.
- `device`: difference of pixels and of embeddings between `device` and `exact`.
- `path`: from tars to batches, and to written rows, with a model that costs nothing, beside the pool
  alone with samples in memory; with `--profile` also the time of this process by function.
"""

import argparse
import cProfile
import hashlib
import io
import itertools
import os
import platform
import pstats
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from benchmarks.photos import caption, crop_photos, write_pool
from benchmarks.pillow_decoder import PillowDecoder
from d2prune.embed import params as params_of_tars
from d2prune.embed import worker as stage
from d2prune.embed.decode import kernel
from d2prune.embed.decode.decoder import Decoder
from d2prune.embed.decode.pool import DecodePool
from d2prune.embed.decode.resize import Pixels, Preprocess
from d2prune.embed.feed import Feed, Ready
from d2prune.embed.model import sources
from d2prune.embed.model.device_resize import WHOLE_BYTES, DeviceResizer, Source
from d2prune.embed.model.encoder import ClipEncoder, Embeddings
from d2prune.inputs.sample_id import SAMPLE_EXTENSIONS
from d2prune.inputs.shards import expand_input
from d2prune.inputs.tar.reader import TarSample

PREPROCESS = Preprocess(224, 224)
FORMATS: dict[str, dict[str, Any]] = {"JPEG": {}, "PNG": {}, "WEBP": {"quality": 80}}


def decoders() -> dict[str, tuple[Decoder, int]]:
    """Return a decoder and the bytes of a slot for each way."""
    return {
        "Pillow": (PillowDecoder(PREPROCESS, 10**8), PREPROCESS.n_bytes),
        "exact": (Decoder(PREPROCESS, 10**8), PREPROCESS.n_bytes),
        "device": (Decoder(PREPROCESS, 10**8, whole_bytes=WHOLE_BYTES), WHOLE_BYTES),
    }


def process_seconds(pid: int) -> float:
    """Return the CPU time of another process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Clock:
    """Wall and CPU seconds of this process and of a pool's decode processes since the start."""

    def __init__(self, pool: DecodePool) -> None:
        self._pids = [process.popen.pid for process in pool._processes if process is not None]
        self._before = self._read()

    def _read(self) -> tuple[float, float, float]:
        return time.perf_counter(), time.process_time(), sum(map(process_seconds, self._pids))

    def read(self) -> tuple[float, float, float]:
        """Return wall seconds, CPU seconds of this process, and of the decode processes."""
        wall, ours, theirs = (
            after - before for after, before in zip(self._read(), self._before, strict=True)
        )
        return wall, ours, theirs


def tar_samples(images: Sequence[bytes]) -> list[TarSample]:
    """Return samples as the reader of tars does."""
    return [
        TarSample(str(i), 0, 0, {"jpg": data, "txt": b"a", "json": b'{"uid": "%032x"}' % i}, {}, ())
        for i, data in enumerate(images)
    ]


def decode_all(pool: DecodePool, samples: Sequence[TarSample]) -> tuple[float, float, float]:
    """Decode samples in memory, in tasks of eight."""
    with pool.lane() as lane:
        lane.submit([(0, samples[0])]).result()
        clock = Clock(pool)
        slots = list(enumerate(samples))
        tasks = [lane.submit(slots[at : at + 8]) for at in range(0, len(slots), 8)]
        for task in tasks:
            task.result()
        return clock.read()


def rates(args: argparse.Namespace, images: list[bytes]) -> None:
    """Print images per CPU second for each format and way."""
    print("\n| format | bytes | Pillow, images/CPU s | exact | device | exact : Pillow | device : Pillow |")
    print("|---|---|---|---|---|---|---|")
    for name, options in FORMATS.items():
        stored = images if name == "JPEG" else [convert(image, name, options) for image in images]
        samples = tar_samples(stored)
        pools = {
            way: DecodePool(decoder, 1, n_bytes, len(samples))
            for way, (decoder, n_bytes) in decoders().items()
        }
        found: dict[str, list[float]] = {way: [] for way in pools}
        for _, (way, pool) in itertools.product(range(args.rounds), pools.items()):
            _, ours, theirs = decode_all(pool, samples)
            found[way].append(len(samples) / (ours + theirs))
        for pool in pools.values():
            pool.close()
        pillow, exact, device = (statistics.median(found[way]) for way in pools)
        size = round(np.mean([len(data) for data in stored]))
        print(
            f"| {name} | {size:,} | {pillow:,.0f} | {exact:,.0f} | {device:,.0f} "
            f"| {exact / pillow:.2f} | {device / pillow:.2f} |"
        )


def convert(image: bytes, name: str, options: dict[str, Any]) -> bytes:
    """Return a JPEG in another format."""
    sink = io.BytesIO()
    Image.open(io.BytesIO(image)).save(sink, name, **options)
    return sink.getvalue()


def steps(args: argparse.Namespace, images: list[bytes]) -> None:
    """Print the CPU milliseconds of each step, on one thread of this process."""
    opened = [Image.open(io.BytesIO(data)).convert("RGB") for data in images]
    pixels = [Pixels.of(image) for image in opened]
    buffer = bytearray(kernel.source_bytes(1000, 1000))
    resized = [PREPROCESS.resized_size(*image.size) for image in opened]
    work: dict[str, Callable[[int], object]] = {
        "open (read the header)": lambda i: Image.open(io.BytesIO(images[i])),
        "decode: Pillow": lambda i: Image.open(io.BytesIO(images[i])).convert("RGB"),
        "decode: simplejpeg": lambda i: simplejpeg.decode_jpeg(images[i], "RGBX", buffer=buffer),
        "resize: Pillow": lambda i: opened[i].resize(resized[i], Image.Resampling.BICUBIC),
        "resize: `kernel.py`": lambda i: PREPROCESS(pixels[i]),
        "SHA-256": lambda i: hashlib.sha256(images[i]).digest(),
    }
    print("\n| step | CPU ms per image |\n|---|---|")
    found: dict[str, list[float]] = {name: [] for name in work}
    for _, (name, function) in itertools.product(range(args.rounds), work.items()):
        start = time.process_time()
        for i in range(len(images)):
            function(i)
        found[name].append((time.process_time() - start) / len(images) * 1e3)
    for name, values in found.items():
        print(f"| {name} | {statistics.median(values):.3f} |")


def process(args: argparse.Namespace, images: list[bytes]) -> None:
    """Print the start and the memory of a decode process."""
    print("\n| decode process | CPU s to the first image | resident MiB | private MiB |\n|---|---|---|---|")
    for way, (decoder, n_bytes) in decoders().items():
        pool = DecodePool(decoder, 1, n_bytes, 8)
        with pool.lane() as lane:
            lane.submit([(0, tar_samples(images)[0])]).result()
            (found,) = pool._processes
            assert found is not None
            start = process_seconds(found.popen.pid)
            for _ in range(5):
                lane.submit(list(enumerate(tar_samples(images)[:8]))).result()
            memory = dict(
                line.split()[:2]
                for line in Path(f"/proc/{found.popen.pid}/smaps_rollup").read_text().splitlines()[1:]
            )
        pool.close()
        private = sum(int(memory[f"Private_{kind}:"]) for kind in ("Clean", "Dirty")) // 1024
        print(f"| {way} | {start:.2f} | {int(memory['Rss:']) // 1024} | {private} |")
    for modules in ("numba", "torch"):
        code = f"import time, resource, PIL.Image, numpy, {modules}; print(time.process_time(), end=' '); "
        code += "print(open('/proc/self/smaps_rollup').read().split()[7])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds, resident = map(float, done.stdout.split()[:2])
        print(f"| for comparison: an import of {modules} | {seconds:.2f} | {resident / 1024:.0f} | |")


def device(args: argparse.Namespace, images: list[bytes]) -> None:
    """Print how `device` changes pixels and embeddings."""
    import torch

    torch.set_num_threads(1)
    head = "model | pixel difference: mean, maximum | share that differs | cosine: median, least"
    print(f"\n| {head} |")
    print("|---|---|---|---|")
    for model in args.models:
        encoder = ClipEncoder(sources.resolve(*make_model(args.folder, model)), "fp32", "cpu")
        preprocess, n = encoder.preprocess, len(images)
        multiple = preprocess.height / 224
        opened = [Image.open(io.BytesIO(data)).convert("RGB") for data in images]
        opened = [
            image.resize((round(image.width * multiple), round(image.height * multiple))) for image in opened
        ]
        expected = np.stack([preprocess(Pixels.of(image)) for image in opened])
        texts = [caption(i) for i in range(n)]
        first = encoder.encode(expected, texts).image_ND.astype(np.float64)
        slots = np.zeros((n, max(3 * image.width * image.height for image in opened)), np.uint8)
        for slot, image in zip(slots, opened, strict=True):
            slot[: 3 * image.width * image.height] = np.frombuffer(image.tobytes(), np.uint8)
        places = [Source(i, 0, image.width, image.height) for i, image in enumerate(opened)]
        resizer = DeviceResizer(preprocess, "cpu")
        found = resizer.resize(resizer.gather(slots, places)).numpy()
        change = np.abs(found.astype(int) - expected)
        second = encoder.encode(found, texts).image_ND.astype(np.float64)
        cosine = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
        print(
            f"| {model} | {change.mean():.4f}, {change.max()} | {(change > 0).mean():.2%} "
            f"| {np.median(cosine):.6f}, {cosine.min():.6f} |"
        )


def make_model(folder: Path, name: str) -> tuple[str, str | None]:
    """Return the source of the demo model, or of an architecture with random weights."""
    if name == "demo":
        return name, None
    from benchmarks.embed import save_model

    return name, str(save_model(folder / "models", name))


class FreeModels:
    """Stands for the models of a worker: gathers batches, and embeds them in no time."""

    def __init__(self, models: Any) -> None:
        self._models = models

    def __getattr__(self, name: str) -> Any:
        return getattr(self._models, name)

    def launch(self, batches: Any, samples: Sequence[Any]) -> "FreeBatch":
        """Take a batch."""
        zeros = np.zeros((len(samples), self._models.dimensions[0]), np.float16)
        return FreeBatch(Embeddings(zeros, zeros, np.zeros(len(samples), np.float32)))


@dataclass
class FreeBatch:
    """A batch that is complete."""

    embeddings: Embeddings
    seconds: float = 0.0
    was_split: bool = False

    def wait(self) -> list[Embeddings]:
        """Return its embeddings."""
        return [self.embeddings]


def path(args: argparse.Namespace, images: list[bytes]) -> None:
    """Print the rates of the pool, of the path to batches, and to written rows."""
    write_pool(args.folder / "path" / "pool", images, 1, args.samples)
    print(
        "\n| resize | from | images/s | share of the pool's, wall | by CPU time "
        "| CPU ms: decode process | this process |\n|---|---|---|---|---|---|---|"
    )
    for resize in ("exact", "device"):
        path_of(args, images, resize)


def path_of(args: argparse.Namespace, images: list[bytes], resize: Any) -> None:
    """Print the rows of one way to resize."""
    folder = args.folder / "path"
    model = make_model(args.folder, "ViT-B-32")
    params = params_of_tars.EmbedParams(*sources.identity(*model), batch_size=256, resize=resize)
    worker = stage.EmbedWorker(str(folder / "work"), params, *model, "cpu", args.processes)
    free = FreeModels(worker._models)
    worker._models = free  # type: ignore[assignment]
    (unit,) = params_of_tars.plan(expand_input(str(folder / "pool")), params)
    samples = tar_samples((images * args.samples)[: args.samples])
    pool = worker._pool

    def to_batches() -> None:
        with pool.lane() as lane, Feed(unit.shard.url, lane, SAMPLE_EXTENSIONS, 1 << 26) as feed:
            ready = (item for item in feed if isinstance(item, Ready))
            while batch := list(itertools.islice(ready, 256)):
                slots = [one.slot for one in batch]
                free.gather(lane.pixels, slots, [one.sample for one in batch])
                feed.release(slots)

    def from_memory() -> None:
        """Keep the pool as busy as a feed does, with samples that are ready."""
        with pool.lane() as lane:
            pending: list[Any] = []
            for at in range(0, len(samples), 8):
                if len(pending) == pool.slots // 8:
                    pending.pop(0).result()
                slots = [(number % (pool.slots // 8 * 8), samples[number]) for number in range(at, at + 8)]
                pending.append(lane.submit(slots))
            for task in pending:
                task.result()

    ways: dict[str, Callable[[], object]] = {
        "memory: the pool alone": from_memory,
        "tar to batches": to_batches,
        "tar to rows": lambda: worker(unit),
    }
    from_memory()
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
    for _, (way, run) in itertools.product(range(args.rounds), ways.items()):
        clock = Clock(pool)
        run()
        found[way].append(clock.read())
    base = found["memory: the pool alone"]
    for way, rounds in found.items():
        pairs = list(zip(base, rounds, strict=True))
        share = statistics.median(alone[0] / spent[0] for alone, spent in pairs)
        by_cpu = statistics.median(sum(alone[1:]) / sum(spent[1:]) for alone, spent in pairs)
        wall, ours, theirs = (statistics.median(spent[i] for spent in rounds) for i in range(3))
        print(
            f"| {resize} | {way} | {args.samples / wall:,.0f} | {share:.0%} | {by_cpu:.0%} "
            f"| {1e3 * theirs / args.samples:.3f} | {1e3 * ours / args.samples:.3f} |"
        )
    if args.profile:
        print_profile(lambda: worker(unit))
    worker.close()


def print_profile(run: Callable[[], object]) -> None:
    """Print the functions of the calling thread that take most time."""
    profile = cProfile.Profile()
    profile.runcall(run)
    pstats.Stats(profile).sort_stats("tottime").print_stats(15)


def main() -> None:
    """Run the chosen parts and print a page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = {"rates": rates, "steps": steps, "process": process, "device": device, "path": path}
    parser.add_argument("--folder", type=Path, required=True, help="for pools, models and artifacts")
    parser.add_argument("--photos", type=Path, default=Path("/usr/share/backgrounds/mate/nature"))
    parser.add_argument("--images", type=int, default=200, help="number of crops (%(default)s)")
    parser.add_argument("--samples", type=int, default=4000, help="in the tar of the part path")
    parser.add_argument("--processes", type=int, default=1, help="decode processes of the part path")
    parser.add_argument("--rounds", type=int, default=5, help="tables show medians over them")
    parser.add_argument("--models", nargs="+", default=["demo", "ViT-B-32"], help="of the part device")
    parser.add_argument("--profile", action="store_true", help="print a profile of the part path")
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    args = parser.parse_args()
    images = crop_photos(args.photos, args.images)
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; ", end="")
    print(f"{len(images)} photos of {np.mean([len(data) for data in images]) / 1e3:.0f} KB")
    for part in args.parts:
        parts[part](args, images)


if __name__ == "__main__":
    main()
