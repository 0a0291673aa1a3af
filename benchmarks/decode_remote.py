"""CPU time per image of remote decoding (`embed.decode: remote`), compared with local decoding.

    python -m benchmarks.decode_remote --photos /usr/share/backgrounds/mate/nature

Starts a Ray cluster of two nodes on this machine: one that declares a GPU (there need not be one),
and one without, which provides a core for the helper. This process is the embedding worker. The
same photos are decoded by a local decode process and by the helper, and the pixels must be equal.
CPU time is counted for this process, the decode process, the helper's actor, and Ray's own
processes, which move the bytes.

Reads the photos of `--photos` (Debian's mate-backgrounds) and prints a markdown table. Takes about
two minutes.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np

from benchmarks import processes
from benchmarks.photos import caption, crop_photos
from d2prune.embed.decode.decoder import Decoder
from d2prune.embed.decode.pool import DecodePool, Lane
from d2prune.embed.decode.remote import AssistedPool
from d2prune.embed.decode.resize import Preprocess
from d2prune.embed.decode.task_queue import TASK_SAMPLES, Outcome
from d2prune.execution import OnRay, Resources, metrics
from d2prune.inputs.tar.reader import TarSample

KINDS = ("worker", "decode process", "helper actor", "Ray processes, both nodes")
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds_by_kind() -> dict[str, float]:
    """Return the CPU time so far of this process and of all its descendants, by kind."""
    parents, names, seconds = {}, {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            pid = int(entry.name)
            parents[pid], names[pid] = int(fields[1]), words
            seconds[pid] = (int(fields[11]) + int(fields[12])) / _TICKS
    found = dict.fromkeys(KINDS, 0.0)
    for pid, words in names.items():
        above = pid
        while above in parents and above != os.getpid():
            above = parents[above]
        if above != os.getpid():
            continue
        if pid == os.getpid():
            kind = "worker"
        elif "d2prune.embed.decode.process" in words:
            kind = "decode process"
        elif words.startswith("ray::WorkerActor"):
            kind = "helper actor"
        else:
            kind = "Ray processes, both nodes"
        found[kind] += seconds[pid]
    return found


def decode(lane: Lane, samples: Sequence[TarSample]) -> list[list[Outcome]]:
    """Decode all samples, as many at a time as the lane has slots, as the worker's feed does."""
    found: list[list[Outcome]] = []
    slots = len(lane.pixels) // TASK_SAMPLES * TASK_SAMPLES
    for start in range(0, len(samples), slots):
        part = list(enumerate(samples[start : start + slots]))
        tasks = [part[at : at + TASK_SAMPLES] for at in range(0, len(part), TASK_SAMPLES)]
        futures: list[Future[list[Outcome]]] = [lane.submit(task) for task in tasks]
        found += [future.result() for future in futures]
    return found


def main() -> None:
    """Decode the photos both ways in alternating rounds and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, default=Path("/usr/share/backgrounds/mate/nature"))
    parser.add_argument("--images", type=int, default=400, help="number of crops (%(default)s)")
    parser.add_argument("--size", type=int, default=224, help="input size of the model in pixels")
    parser.add_argument("--rounds", type=int, default=3, help="the table shows medians over them")
    args = parser.parse_args()
    images = crop_photos(args.photos, args.images)
    samples = [
        TarSample(str(i), 0, 0, {"jpg": data, "txt": caption(i).encode()}, {}, ())
        for i, data in enumerate(images)
    ]

    os.environ["PYTHONPATH"] = processes.PYTHONPATH
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    from ray.cluster_utils import Cluster

    memory = 200 << 20
    head = {"num_cpus": 1, "num_gpus": 1, "include_dashboard": False, "object_store_memory": memory}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1, object_store_memory=memory)
    executor = OnRay(cluster.address)
    preprocess = Preprocess(args.size, args.size)
    shape = (Decoder(preprocess, 10**8), preprocess.n_bytes, 16 * TASK_SAMPLES, 1, 60.0)
    local = DecodePool(shape[0], 1, *shape[1:])
    remote = AssistedPool(shape[0], 0, *shape[1:], executor.helpers(Resources(num_gpus=1)), 1)

    rounds: dict[str, list[dict[str, float]]] = {"local": [], "remote": []}
    pixels = {}
    for number in range(args.rounds + 1):
        for name, pool in (("local", local), ("remote", remote)):
            with pool.lane() as lane:
                before, start = cpu_seconds_by_kind(), time.monotonic()
                decode(lane, samples)
                after, seconds = cpu_seconds_by_kind(), time.monotonic() - start
                pixels[name] = np.array(lane.pixels[:TASK_SAMPLES])
            if number:
                # The first round starts processes.
                rounds[name].append({kind: after[kind] - before[kind] for kind in KINDS} | {"wall": seconds})
    assert np.array_equal(pixels["local"], pixels["remote"])
    ray, before, start = KINDS[-1], cpu_seconds_by_kind(), time.monotonic()
    time.sleep(5)
    idle_share = (cpu_seconds_by_kind()[ray] - before[ray]) / (time.monotonic() - start)
    counted = metrics.total(metrics.SAMPLES_DECODED_REMOTELY)
    assert counted == len(samples) * (args.rounds + 1)
    remote.close()
    local.close()
    executor.close()
    cluster.shutdown()

    mean_kb = np.mean([len(data) for data in images]) / 1e3
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; ", end="")
    print(f"{len(images)} photos of {mean_kb:.0f} KB, {preprocess.n_bytes / 1e3:.0f} KB of pixels each\n")
    print(f"| CPU ms per image | {' | '.join(KINDS)} | total |\n|---|" + "---|" * (len(KINDS) + 1))
    for name, measured in rounds.items():
        # Ray's processes also use CPU time while no images arrive: it is subtracted.
        spent = {kind: statistics.median(one[kind] for one in measured) for kind in KINDS}
        spent[ray] -= idle_share * statistics.median(one["wall"] for one in measured)
        spent[ray] = max(0.0, spent[ray]) if name == "remote" else 0.0
        per_image = [1e3 * value / len(images) for value in spent.values()]
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in per_image)} | {sum(per_image):.2f} |")


if __name__ == "__main__":
    main()
