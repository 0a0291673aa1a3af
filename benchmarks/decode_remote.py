"""What a picture costs that another machine decodes (`embed.decode: remote`), beside one that this machine decodes.

A Ray cluster of two nodes on this machine: one with a GPU (only said to be there) and one without,
which lends a core. This process is the worker. The same photos go through a decode process here,
then through a helper there; told is the processor time per picture of everybody who takes part:
this process, the decode process, and of the helper's node its actor and Ray's own programs, which
move the bytes. Pixels must be equal.

`python -m benchmarks.decode_remote --photos /usr/share/backgrounds/mate/nature` (Debian's
mate-backgrounds); about two minutes.
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

from benchmarks.embed import caption, crops
from d2prune.embed.decode.decoder import Decoder
from d2prune.embed.decode.pool import DecodePool, Lane
from d2prune.embed.decode.remote import AssistedPool
from d2prune.embed.decode.resize import Preprocess
from d2prune.embed.decode.task_queue import TASK_SAMPLES, Outcome
from d2prune.execution import OnRay, Resources, metrics
from d2prune.inputs.tar.reader import TarSample

KINDS = ("worker", "decode process", "helper's actor", "Ray's programs")
_TICKS = os.sysconf("SC_CLK_TCK")


def seconds_by_kind() -> dict[str, float]:
    """Processor time so far of this process and of all that it started, directly or not."""
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
            kind = "helper's actor"
        else:
            kind = "Ray's programs"
        found[kind] += seconds[pid]
    return found


def decode(lane: Lane, samples: Sequence[TarSample]) -> list[list[Outcome]]:
    """All of them, a lane's worth at a time, as a feed hands them on."""
    found: list[list[Outcome]] = []
    slots = len(lane.pixels) // TASK_SAMPLES * TASK_SAMPLES
    for start in range(0, len(samples), slots):
        part = list(enumerate(samples[start : start + slots]))
        tasks = [part[at : at + TASK_SAMPLES] for at in range(0, len(part), TASK_SAMPLES)]
        futures: list[Future[list[Outcome]]] = [lane.submit(task) for task in tasks]
        found += [future.result() for future in futures]
    return found


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, default=Path("/usr/share/backgrounds/mate/nature"))
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--size", type=int, default=224, help="pixels of the model's side")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    images = crops(args.photos, args.images)
    samples = [
        TarSample(str(i), 0, 0, {"jpg": data, "txt": caption(i).encode()}, {}, ())
        for i, data in enumerate(images)
    ]

    os.environ["PYTHONPATH"] = os.getcwd()
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
                before, start = seconds_by_kind(), time.monotonic()
                decode(lane, samples)
                after, seconds = seconds_by_kind(), time.monotonic() - start
                pixels[name] = np.array(lane.pixels[:TASK_SAMPLES])
            if number:
                # The first round starts processes.
                rounds[name].append({kind: after[kind] - before[kind] for kind in KINDS} | {"clock": seconds})
    assert np.array_equal(pixels["local"], pixels["remote"])
    idle, start = seconds_by_kind(), time.monotonic()
    time.sleep(5)
    resting = (seconds_by_kind()["Ray's programs"] - idle["Ray's programs"]) / (time.monotonic() - start)
    counted = metrics.total(metrics.SAMPLES_DECODED_REMOTELY)
    assert counted == len(samples) * (args.rounds + 1)
    remote.close()
    local.close()
    executor.close()
    cluster.shutdown()

    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {len(images)} photos of ",
        end="",
    )
    print(
        f"{np.mean([len(data) for data in images]) / 1e3:.0f} KB, {preprocess.n_bytes / 1e3:.0f} KB of pixels each\n"
    )
    print(
        f"| ms of processor time per picture | {' | '.join(KINDS)} | all |\n|---|" + "---|" * (len(KINDS) + 1)
    )
    for name, each in rounds.items():
        # Ray's programs also do other things, whether pictures come or not.
        spent = {kind: statistics.median(one[kind] for one in each) for kind in KINDS}
        spent["Ray's programs"] -= resting * statistics.median(one["clock"] for one in each)
        spent["Ray's programs"] = max(0.0, spent["Ray's programs"]) if name == "remote" else 0.0
        shown = [1e3 * value / len(images) for value in spent.values()]
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in shown)} | {sum(shown):.2f} |")


if __name__ == "__main__":
    main()
