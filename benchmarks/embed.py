r"""Embedding: throughput compared with the bare model, decoding beside other loaders, and memory.

    python -m benchmarks.embed --folder /tmp/bench --photos /usr/share/backgrounds/mate/nature
    python -m benchmarks.embed --folder /tmp/bench --photos ... --device cuda --parts model \
        --models ViT-B-32 ViT-L-14 --samples 20000 --batch-size 512

Reads photos from `--photos` (Debian's mate-backgrounds) and crops them to JPEGs of about 500 x 400
pixels; writes pools, models and artifacts below `--folder`; prints a markdown page. Models have a
real architecture and random weights. The parts (`--parts`):

- `model`: samples/s end to end from tars (`EmbedWorker`), alternating with a bare loop of
  `encode_image` and `encode_text` on ready tensors, with the same number of threads. With
  `--device cuda` also the share of time that the GPU is busy, and of its bf16 matrix-product rate.
- `decode`: images per second of one core, for a decode process, for open_clip's preprocessing in a
  loop, and for webdataset's pipeline.
- `memory`: memory of the worker and of its decode processes over 50 shards.
- `large-shard`: the same over one shard of `--gigabytes` (a sparse file), first of samples with a
  large member that is skipped, then of images of 20 MB each.
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

from benchmarks.photos import caption, crop_photos, write_pool, write_sparse_tar
from d2prune.embed import params as params_of_tars
from d2prune.embed import worker as stage
from d2prune.embed.decode.decoder import Decoder
from d2prune.embed.decode.pool import DecodePool
from d2prune.embed.decode.resize import Pixels, Preprocess
from d2prune.embed.model import sources
from d2prune.embed.model.encoder import ClipEncoder
from d2prune.execution import InProcess, Resources
from d2prune.inputs.shards import expand_input
from d2prune.inputs.tar.reader import TarSample


def save_model(folder: Path, name: str) -> Path:
    """Save a checkpoint with random weights of an architecture, unless there is one."""
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
    """Return the parameters of the embed stage, and a function that makes a worker of it."""
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
    """Return the CPU time of this process and of its finished children."""
    return sum(
        use.ru_utime + use.ru_stime
        for use in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def process_seconds(pid: int) -> float:
    """Return the CPU time of another process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def end_to_end(args: argparse.Namespace, name: str, images: list[bytes]) -> None:
    """Measure the bare loop and the worker in alternating rounds, and print their rates."""
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
    decoded = [encoder.preprocess(Pixels.of(Image.open(io.BytesIO(image)))) for image in (images * n)[:n]]
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
        # Starts the decode processes and warms up the model.
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
    print(f"| {name}, {encoder.precision} | bare `encode_image`, `encode_text` | {b:,.1f} | {bc:,.1f} | |")
    shares = f"{o / b:.1%} by wall time, {oc / bc:.1%} by CPU time; model busy {busy:.1%}"
    print(f"| | from tars | {o:,.1f} | {oc:,.1f} | {shares} |")
    if args.device == "cuda":
        rate, flops = matmul_rate(), flops_per_sample(model, pixels[:1], tokens[:1])
        peak = f"of {rate / 1e12:,.0f} TFLOP/s bf16, {flops / 1e9:,.1f} GFLOP each"
        print(f"| | {peak} | | | {o * flops / rate:.1%} |")


def matmul_rate() -> float:
    """Measure the FLOP/s of bf16 products of 8192 x 8192 matrices on the GPU."""
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
    """Return the FLOP of one image and one caption as counted by torch, attention included."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.encode_image(pixels)
        model.encode_text(tokens)
    return float(counter.get_total_flops())


def decode_rates(args: argparse.Namespace, images: list[bytes]) -> None:
    """Print the images per CPU second of each way to decode."""
    import webdataset

    sources.import_open_clip()
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2

    # On one core: torch's idle threads spin, which would count as CPU time.
    torch.set_num_threads(1)
    transform = image_transform_v2(PreprocessCfg(size=224), is_train=False)
    pool = args.folder / "decode"
    write_pool(pool, images, 1, len(images))

    def time_cpu(work: Callable[[], object], pids: Sequence[int] = ()) -> float:
        start = time.process_time() + sum(map(process_seconds, pids))
        work()
        return time.process_time() + sum(map(process_seconds, pids)) - start

    def time_open_clip() -> float:
        return time_cpu(lambda: [transform(Image.open(io.BytesIO(image))) for image in images])

    def time_webdataset() -> float:
        found = webdataset.WebDataset(str(pool / "00000.tar"), shardshuffle=False, empty_check=False)
        return time_cpu(lambda: list(found.decode("pilrgb").to_tuple("jpg", "txt").map_tuple(transform, len)))

    def time_decode_process() -> float:
        preprocess = Preprocess(224, 224)
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
            seconds = time_cpu(decode, [process.popen.pid] if process is not None else [])
        processes.close()
        return seconds

    timers = {
        "decode process (including its parent's share)": time_decode_process,
        "open_clip preprocessing in a loop": time_open_clip,
        "webdataset pipeline": time_webdataset,
    }
    print(f"\n| one core | images per CPU second | range over {args.rounds} rounds |\n|---|---|---|")
    rates: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(args.rounds):
        for name, timer in timers.items():
            rates[name].append(len(images) / timer())
    for name, found in rates.items():
        print(f"| {name} | {statistics.median(found):,.0f} | {min(found):,.0f} to {max(found):,.0f} |")


def resident_mib(*pids: int) -> int:
    """Return the resident memory of these processes."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                total += int(line.split()[1]) // 1024 if line.startswith("VmRSS") else 0
    return total


def print_memory(worker: Any, label: str) -> None:
    """Print the memory of the worker and of its decode processes."""
    children = [process.popen.pid for process in worker._pool._processes if process is not None]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"| {label} | {resident_mib(os.getpid()):,} | {peak:,} | {resident_mib(*children):,} |", flush=True)


MEMORY_HEAD = "\n| MiB | worker | worker peak so far | decode process |\n|---|---|---|---|"


def memory(args: argparse.Namespace, images: list[bytes]) -> None:
    """Print the memory of the worker and of its decode processes over many shards."""
    write_pool(args.folder / "many", images, 50, 100)
    params, make = make_worker(args.folder / "memory", "demo", None, args)
    worker = make()
    print(MEMORY_HEAD)
    for number, unit in enumerate(params_of_tars.plan(expand_input(str(args.folder / "many")), params), 1):
        worker(unit)
        if number in (1, 5, 10, 25, 50):
            print_memory(worker, f"after {number} shards of 100 samples")


def large_shard(args: argparse.Namespace, images: list[bytes]) -> None:
    """Print the memory of the worker and of its decode processes after very large shards."""
    params, make = make_worker(args.folder / "large", "demo", None, args)
    worker = make()
    shard, samples = args.folder / "one.tar", int(args.gigabytes * 1e9) // (20 << 20)
    print(MEMORY_HEAD)
    for label, write in (
        ("samples of 33 KB", partial(write_pool, args.folder / "warm", images, 1, 100)),
        (
            "samples with a skipped member of 20 MB each",
            partial(write_sparse_tar, shard, images, samples, 20 << 20, False),
        ),
        ("images of 20 MB each", partial(write_sparse_tar, shard, images, samples, 20 << 20, True)),
    ):
        write()
        path = shard if shard.exists() else args.folder / "warm"
        (unit,) = params_of_tars.plan(expand_input(str(path)), params)
        start, cpu = time.perf_counter(), cpu_seconds()
        receipt = worker(unit)
        spent = f"{time.perf_counter() - start:.0f} s, {cpu_seconds() - cpu:.0f} CPU s"
        print_memory(
            worker, f"{receipt.counters['embedded']} {label}: {unit.shard.size / 1e9:.1f} GB, {spent}"
        )
        shard.unlink(missing_ok=True)
    worker.close()


def main() -> None:
    """Run the selected parts and print a markdown page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="for pools, models and artifacts")
    parser.add_argument(
        "--photos", type=Path, default=Path("/usr/share/backgrounds/mate/nature"), help="folder of JPEGs"
    )
    parser.add_argument("--parts", nargs="+", default=["model", "decode", "memory", "large-shard"])
    parser.add_argument(
        "--gigabytes", type=float, default=20, help="shard size in the part `large-shard`; needs no disk"
    )
    parser.add_argument("--models", nargs="+", default=["ViT-B-32"], help="open_clip architectures")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="auto", help="as embed.precision")
    parser.add_argument("--samples", type=int, default=256, help="samples in the part `model`")
    parser.add_argument("--images", type=int, default=400, help="number of different photos")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument(
        "--compile", action="store_true", help="part `model`: compile the worker's model, not the bare loop"
    )
    parser.add_argument(
        "--auto", action="store_true", help="part `model`: let the worker find its batch size"
    )
    parser.add_argument(
        "--processes", type=int, help="decode processes (default: 1 on a CPU; all cores with a GPU)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="tables show medians over them")
    args = parser.parse_args()
    args.processes = args.processes or (1 if args.device == "cpu" else len(os.sched_getaffinity(0)))
    images = crop_photos(args.photos, args.images)
    mean_kb = np.mean([len(image) for image in images]) / 1e3
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; ", end="")
    print(f"{len(images)} photos of {mean_kb:.0f} KB; batches of {args.batch_size}\n")
    if "model" in args.parts:
        print("| model | run | samples/s | samples per CPU second | share of the bare model |")
        print("|---|---|---|---|---|")
        for name in args.models:
            end_to_end(args, name, images)
    others = {"decode": decode_rates, "memory": memory, "large-shard": large_shard}
    for part, work in others.items():
        if part in args.parts:
            work(args, images)


if __name__ == "__main__":
    main()
