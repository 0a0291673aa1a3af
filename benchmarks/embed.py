"""How near embedding comes to the model alone, what decoding costs, what `fast` changes, and what memory it takes.

Photos are crops of those in `--photos` (Debian's mate-backgrounds:
`/usr/share/backgrounds/mate/nature`), about 500 x 400, saved as JPEG. The model is a real
architecture with random weights that were saved to a file. Parts:

- `model`: samples/s end to end from tars (`EmbedWorker`), beside a bare loop of `encode_image` and `encode_text` on
  tensors that are ready, in turns, with the same threads. With `--device cuda` also the share of
  time that the GPU is busy and of the bf16 matrix-product rate measured on it.
- `decode`: images per second of one core: a decode process, open_clip's preprocessing in a loop, webdataset's pipeline.
- `fast`: cosine of `fast` and `exact` embeddings of the same photos, and how far clip_score moves.
- `memory`: this process and its decode processes over 50 shards.
- `large-shard`: the same over one shard of `--gigabytes` (sparse files): of samples with a large member that is
  skipped, and of pictures of 20 MB each, which are not.

`python -m benchmarks.embed --folder /tmp/bench --photos /usr/share/backgrounds/mate/nature`
`python -m benchmarks.embed --folder /tmp/bench --photos ... --device cuda --models ViT-B-32
ViT-L-14 --parts model
--samples 20000 --batch-size 512`
"""

import argparse
import contextlib
import io
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from d2prune.embed import params as params_of_tars
from d2prune.embed import worker as stage
from d2prune.embed.decode.decoder import Decoder
from d2prune.embed.decode.pool import DecodePool
from d2prune.embed.decode.resize import Method, Preprocess
from d2prune.embed.model import sources
from d2prune.embed.model.encoder import ClipEncoder
from d2prune.execution import InProcess, Resources
from d2prune.inputs.shards import expand_input
from d2prune.inputs.tar.reader import TarSample
from d2prune.inputs.tar.write import END_OF_ARCHIVE, member_header, padding

WORDS = "a photo of the old red garden with yellow flowers beside dunes under storm clouds at dawn in green".split()


def crops(folder: Path, count: int, seed: int = 0, shorter: int | None = None) -> list[bytes]:
    """JPEGs of random crops of the folder's photos, about 500 x 400 pixels, or with that shorter side."""
    photos = [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.jp*g"))]
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        photo = photos[i % len(photos)]
        width = int(rng.integers(400, 600))
        height = int(width * rng.uniform(0.6, 1.0))
        if shorter is not None:
            width, height = width * shorter // height, shorter
        scale = rng.uniform(1, min(photo.width / width, photo.height / height))
        wide, high = int(width * scale), int(height * scale)
        left, top = rng.integers(0, photo.width - wide + 1), rng.integers(0, photo.height - high + 1)
        sink = io.BytesIO()
        photo.resize((width, height), Image.Resampling.LANCZOS, (left, top, left + wide, top + high)).save(
            sink, "JPEG", quality=90
        )
        made.append(sink.getvalue())
    return made


def caption(i: int) -> str:
    """A caption of ten words."""
    return " ".join(np.random.default_rng(i).choice(WORDS, 10))


def write_pool(folder: Path, images: list[bytes], shards: int, per_shard: int) -> None:
    """Tars of these images, again and again."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        with open(folder / f"{shard:05d}.tar", "wb") as tar:
            for i in range(per_shard):
                number = shard * per_shard + i
                for kind, data in (("jpg", images[number % len(images)]), ("txt", caption(number).encode())):
                    tar.write(member_header(f"{number:08d}.{kind}", len(data)) + data + padding(len(data)))
            tar.write(END_OF_ARCHIVE)


def write_sparse_tar(path: Path, images: list[bytes], samples: int, size: int, inside: bool) -> None:
    """A tar whose samples each have a member of `size` bytes, nearly all of them zeros that take no disk.

    It is a third one beside image and caption, or, with `inside`, the image, with the zeros behind its end.
    """
    with open(path, "wb") as tar:
        for i in range(samples):
            large = f"{i:08d}.{'jpg' if inside else 'npy'}"
            members = {large: b"", f"{i:08d}.jpg": images[i % len(images)], f"{i:08d}.txt": b"a photo"}
            for name, data in members.items():
                length = size if name == large else len(data)
                tar.write(member_header(name, length) + data)
                tar.seek(length - len(data) + len(padding(length)), os.SEEK_CUR)
        tar.write(END_OF_ARCHIVE)


def save_model(folder: Path, name: str) -> Path:
    """Random weights of an architecture as a checkpoint."""
    import torch

    open_clip = sources.import_open_clip()
    path = folder / f"{name}.pt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        torch.save(open_clip.create_model(name, load_weights=False).state_dict(), path)
    return path


def make_worker(
    folder: Path, model: str, weights: str | None, args: argparse.Namespace, **changes: Any
) -> Any:
    """A worker of the embed stage, and what it needs to plan units."""
    model, weights = sources.make_absolute(model, weights)
    params = params_of_tars.EmbedParams(
        *sources.identity(model, weights),
        precision=args.precision,
        batch_size="auto" if args.auto else args.batch_size,
        compile=args.compile,
    )
    processes = changes.pop("processes", args.processes)
    return params, partial(
        stage.EmbedWorker,
        str(folder),
        params,
        model,
        weights,
        args.device,
        decode_processes=processes,
        **changes,
    )


def cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    return sum(
        use.ru_utime + use.ru_stime
        for use in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def process_seconds(pid: int) -> float:
    """Processor time of another process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def end_to_end(args: argparse.Namespace, name: str, images: list[bytes]) -> None:
    """Print the rates of the worker and of the bare loop, in turns."""
    import torch

    weights = str(save_model(args.folder / "models", name))
    per_shard = args.samples // 2
    write_pool(args.folder / "pool", images, 2, per_shard)
    params, make = make_worker(args.folder / "work", name, weights, args)
    units = params_of_tars.plan(expand_input(str(args.folder / "pool")), params)
    write_pool(args.folder / "warm", images, 1, 2 * args.batch_size)
    (warm,) = params_of_tars.plan(expand_input(str(args.folder / "warm")), params)
    encoder = ClipEncoder(sources.resolve(name, weights), args.precision, args.device)
    model, n = encoder._model, args.batch_size
    decoded = [np.asarray(encoder.preprocess(Image.open(io.BytesIO(image)))) for image in (images * n)[:n]]
    with torch.inference_mode():
        pixels = encoder.normalise(torch.from_numpy(np.stack(decoded)).to(encoder.device))
    tokens = encoder.tokenize([caption(i) for i in range(n)]).to(encoder.device)

    def bare() -> tuple[float, float]:
        batches = max(1, args.samples // n)
        start, cpu = time.perf_counter(), cpu_seconds()
        with torch.inference_mode():
            for _ in range(batches):
                model.encode_image(pixels, normalize=True)
                found = model.encode_text(tokens, normalize=True)
            found.cpu()
        return batches * n / (time.perf_counter() - start), batches * n / (cpu_seconds() - cpu)

    def ours() -> tuple[float, float, float]:
        worker = make()
        # Also starts the decode processes and warms the model up.
        worker(warm)
        busy, launch = [0.0], worker._book

        def book(samples: Any, flight: Any, part: Any) -> None:
            launch(samples, flight, part)
            busy[0] += flight.seconds

        worker._book = book
        start, cpu = time.perf_counter(), cpu_seconds()
        list(InProcess().map(lambda: worker, units, Resources(units_in_flight=stage.SHARDS_IN_FLIGHT)))
        wall = time.perf_counter() - start
        return args.samples / wall, args.samples / (cpu_seconds() - cpu), busy[0] / wall

    bare()
    rounds = [(bare(), ours()) for _ in range(args.rounds)]
    b, o = (statistics.median(r[i][0] for r in rounds) for i in (0, 1))
    bc, oc = (statistics.median(r[i][1] for r in rounds) for i in (0, 1))
    busy = statistics.median(r[1][2] for r in rounds)
    print(f"| {name}, {encoder.precision} | bare model | {b:,.1f} | {bc:,.1f} | | |")
    shares = f"{o / b:.1%} by clock, {oc / bc:.1%} by CPU"
    print(f"| | from tars | {o:,.1f} | {oc:,.1f} | {shares} | model busy {busy:.1%} |")
    if args.device == "cuda":
        rate, flops = matmul_rate(), flops_per_sample(model, pixels[:1], tokens[:1])
        print(
            f"| | of {rate / 1e12:,.0f} TFLOP/s bf16 | {flops / 1e9:,.1f} GFLOP each | | {o * flops / rate:.1%} | |"
        )


def matmul_rate() -> float:
    """bf16 matrix products of 8192 x 8192, FLOP/s."""
    import torch

    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        a @ b
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(50):
        a @ b
    torch.cuda.synchronize()
    return 50 * 2 * 8192**3 / (time.perf_counter() - start)


def flops_per_sample(model: Any, pixels: Any, tokens: Any) -> float:
    """Counted by torch, attention included."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.encode_image(pixels)
        model.encode_text(tokens)
    return float(counter.get_total_flops())


def decode_rates(args: argparse.Namespace, images: list[bytes]) -> None:
    """Print images per second of processor time for each way to decode."""
    import webdataset

    sources.import_open_clip()
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2

    # One core each: waiting threads would be counted as work.
    torch.set_num_threads(1)
    transform = image_transform_v2(PreprocessCfg(size=224), is_train=False)
    pool = args.folder / "decode"
    write_pool(pool, images, 1, len(images))

    def clocked(work: Callable[[], object], pids: Sequence[int] = ()) -> float:
        start = time.process_time() + sum(map(process_seconds, pids))
        work()
        return time.process_time() + sum(map(process_seconds, pids)) - start

    def theirs() -> float:
        return clocked(lambda: [transform(Image.open(io.BytesIO(image))) for image in images])

    def through_webdataset() -> float:
        found = webdataset.WebDataset(str(pool / "00000.tar"), shardshuffle=False, empty_check=False)
        return clocked(lambda: list(found.decode("pilrgb").to_tuple("jpg", "txt").map_tuple(transform, len)))

    def ours(method: Method) -> float:
        preprocess = Preprocess(224, 224, method=method)
        processes = DecodePool(Decoder(preprocess, 10**8), 1, preprocess.n_bytes, len(images))
        samples = [
            TarSample(str(i), 0, 0, {"jpg": image, "txt": b"a"}, {}, ()) for i, image in enumerate(images)
        ]
        with processes.lane() as lane:

            def decode() -> None:
                tasks = [list(enumerate(samples))[at : at + 8] for at in range(0, len(samples), 8)]
                for future in [lane.submit(task) for task in tasks]:
                    future.result()

            lane.submit([(0, samples[0])]).result()
            (process,) = processes._processes
            seconds = clocked(decode, [process.popen.pid] if process is not None else [])
        processes.close()
        return seconds

    ways = {
        "decode process, exact": partial(ours, "exact"),
        "decode process, fast": partial(ours, "fast"),
        "open_clip's preprocessing": theirs,
        "webdataset's pipeline": through_webdataset,
    }
    print("\n| images per second of processor time | median | spread |\n|---|---|---|")
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            rates[name].append(len(images) / way())
    for name, found in rates.items():
        print(f"| {name} | {statistics.median(found):,.0f} | {min(found):,.0f} to {max(found):,.0f} |")


def fast_and_exact(args: argparse.Namespace, images: list[bytes]) -> None:
    """Print how far `fast` moves embeddings and scores; with the demo model also by the photos' size."""
    print(
        "\n| model | photos | cosine, median | cosine, 1st percentile | clip_score moves: median | 99th percentile |"
    )
    print("|---|---|---|---|---|---|")
    models = [(name, str(save_model(args.folder / "models", name))) for name in args.models]
    of_sizes: list[tuple[str, str | None, float | None]] = [
        ("demo", None, multiple) for multiple in (1.3, 2.5, 5)
    ]
    for name, weights, multiple in [*((*source, None) for source in models), *of_sizes]:
        encoder = ClipEncoder(sources.resolve(name, weights), "fp32", args.device)
        if multiple is not None:
            images = crops(args.photos, args.images, shorter=round(multiple * encoder.preprocess.height))
        found = []
        for method in ("exact", "fast"):
            decoder = Decoder(
                Preprocess(encoder.preprocess.height, encoder.preprocess.width, method=method), 10**8
            )
            pixels = np.stack(
                [np.asarray(decoder.preprocess(decoder.decode_image(image).image)) for image in images]
            )
            found.append(encoder.encode(pixels, [caption(i) for i in range(len(images))]))
        one, two = (each.image_ND.astype(np.float64) for each in found)
        cosine = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
        moves = np.abs(found[0].clip_score_N - found[1].clip_score_N)
        what = f"{name}, random weights" if multiple is None else f"{name}, shorter side x {multiple}"
        print(
            f"| {what} | {len(images)} | {np.median(cosine):.6f} | "
            f"{np.percentile(cosine, 1):.6f} | {np.median(moves):.5f} | {np.percentile(moves, 99):.5f} |"
        )


def resident_mib(*pids: int) -> int:
    """Memory that these processes hold now."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                total += int(line.split()[1]) // 1024 if line.startswith("VmRSS") else 0
    return total


def report_memory(worker: Any, what: str) -> None:
    """Print what the worker and its processes hold."""
    children = [process.popen.pid for process in worker._pool._processes if process is not None]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"| {what} | {resident_mib(os.getpid()):,} | {peak:,} | {resident_mib(*children):,} |", flush=True)


MEMORY_HEAD = "\n| MiB | worker | its peak so far | decode processes |\n|---|---|---|---|"


def memory(args: argparse.Namespace, images: list[bytes]) -> None:
    """Print what the worker and its processes hold after each of many shards."""
    write_pool(args.folder / "many", images, 50, 100)
    params, make = make_worker(args.folder / "memory", "demo", None, args)
    worker = make()
    print(MEMORY_HEAD)
    for number, unit in enumerate(params_of_tars.plan(expand_input(str(args.folder / "many")), params), 1):
        worker(unit)
        if number in (1, 5, 10, 25, 50):
            report_memory(worker, f"after {number} shards of 100")


def large_shard(args: argparse.Namespace, images: list[bytes]) -> None:
    """Print what the worker and its processes hold after one very large shard, of each kind."""
    params, make = make_worker(args.folder / "large", "demo", None, args)
    worker = make()
    shard, samples = args.folder / "one.tar", int(args.gigabytes * 1e9) // (20 << 20)
    print(MEMORY_HEAD)
    for what, write in (
        ("100 samples of 33 kB", partial(write_pool, args.folder / "warm", images, 1, 100)),
        (
            "large members that are skipped",
            partial(write_sparse_tar, shard, images, samples, 20 << 20, False),
        ),
        ("pictures of 20 MB", partial(write_sparse_tar, shard, images, samples, 20 << 20, True)),
    ):
        write()
        where = shard if shard.exists() else args.folder / "warm"
        (unit,) = params_of_tars.plan(expand_input(str(where)), params)
        start, cpu = time.perf_counter(), cpu_seconds()
        receipt = worker(unit)
        spent = f"{time.perf_counter() - start:.0f} s, {cpu_seconds() - cpu:.0f} s of its processor time"
        report_memory(
            worker, f"{what}: {unit.shard.size / 1e9:.1f} GB, {receipt.counters['embedded']} samples, {spent}"
        )
        shard.unlink(missing_ok=True)
    worker.close()


def main() -> None:
    """Run the parts that are asked for and print a markdown page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="for pools, models and parts")
    parser.add_argument("--photos", type=Path, default=Path("/usr/share/backgrounds/mate/nature"))
    parser.add_argument("--parts", nargs="+", default=["model", "decode", "fast", "memory", "large-shard"])
    parser.add_argument(
        "--gigabytes", type=float, default=20, help="of the part `large-shard`; takes no disk"
    )
    parser.add_argument("--models", nargs="+", default=["ViT-B-32"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--samples", type=int, default=256, help="of the part `model`")
    parser.add_argument("--images", type=int, default=400, help="different photos")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument(
        "--compile", action="store_true", help="of the worker in the part `model`, not of the bare loop"
    )
    parser.add_argument("--auto", action="store_true", help="likewise: the worker finds its own batch size")
    parser.add_argument("--processes", type=int, help="that decode; default: 1, or with a GPU the cores")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    args.processes = args.processes or (1 if args.device == "cpu" else len(os.sched_getaffinity(0)))
    images = crops(args.photos, args.images)
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; ", end="")
    print(
        f"{len(images)} photos of {np.mean([len(i) for i in images]) / 1e3:.0f} KB; batches of {args.batch_size}\n"
    )
    if "model" in args.parts:
        print("| model | | samples/s | samples per CPU second | | |\n|---|---|---|---|---|---|")
        for name in args.models:
            end_to_end(args, name, images)
    others = {"decode": decode_rates, "fast": fast_and_exact, "memory": memory, "large-shard": large_shard}
    for part, work in others.items():
        if part in args.parts:
            work(args, images)


if __name__ == "__main__":
    main()
