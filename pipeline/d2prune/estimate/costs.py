"""What a run will take, before it starts: work, bytes, memory, time and cost of each stage, and what limits it.

Pure: a workload, rates and a fleet in, one `StagePlan` per stage out. Rates are seconds of one
worker; those that no calibration gave are the measured ones of docs/results.md or published ones,
as `DEFAULTS` says. A worker is a core, and for `embed` a GPU where there is one. The graph's work
is counted as its kernels do it: products with nprobe lists of N / nlist rows for each row, and a
part per row; everything else is linear in samples or bytes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

STAGES = ("embed", "graph", "rank", "select", "write", "report")
WHOLE_BELOW = 100_000
"""As graph.params.Layout.whole_below: smaller pools are one unit in one worker's memory."""


@dataclass(frozen=True)
class Workload:
    """What there is to do.

    Attributes:
        samples: of the pool.
        sample_bytes: of one in its tar.
        shards: input tars.
        dimension: of one embedding.
        stored: values of a sample's embeddings by all models, image and text; None: those of one.
        sides: 2 for image+text features.
        n_neighbors: k.
        exact: no lists: every row against every other.
        nlist: of the graph; None: chosen from the samples.
        nprobe: lists a row is searched in; None: estimated from the samples.
        fraction: share that is kept.
        samples_per_shard: of an output tar.
    """

    samples: int
    sample_bytes: float
    shards: int
    dimension: int
    stored: int | None = None
    sides: int = 2
    n_neighbors: int = 5
    exact: bool = False
    nlist: int | None = None
    nprobe: int | None = None
    fraction: float = 0.3
    samples_per_shard: int = 10_000


@dataclass(frozen=True)
class Rates:
    """Seconds of one worker; all measured on one kind of machine, or as `source` says.

    Attributes:
        embed_s: per sample.
        decode_s: of a core, per sample, beside a GPU.
        graph_row_s: per row, whatever its neighbours.
        graph_flops: products, operations per second of a core.
        graph_shards: how much more CPU the graph takes in shards than in one memory.
        rank_s: per sample.
        select_s: per sample.
        write_byte_s: per byte that is kept.
        report_s: per sample.
        store_bytes_s: bytes per second that one worker reads from the store or writes there.
        start_s: by stage, before its first unit.
        source: for the reader of the plan.
    """

    embed_s: float
    decode_s: float = 1 / 272
    graph_row_s: float = 5.3e-5
    graph_flops: float = 1.2e11
    graph_shards: float = 2.5
    rank_s: float = 2.5e-6
    select_s: float = 1e-6
    write_byte_s: float = 1 / 223e6
    report_s: float = 1e-6
    store_bytes_s: float = 88e6
    start_s: Mapping[str, float] = field(default_factory=dict)
    source: str = ""


DEFAULTS = {"ViT-B-32": 2_500, "ViT-L-14": 312}
"""Samples/s of one A100, as clip-retrieval publishes them; `--calibrate` or `--embed-rate` for anything else."""


@dataclass(frozen=True)
class Fleet:
    """What it runs on, and what that costs per hour."""

    gpus: int = 0
    cpus: int = 16
    gpu_price: float = 0.0
    cpu_price: float = 0.0


@dataclass(frozen=True)
class StagePlan:
    """One stage: units, hours of devices, bytes, memory of one worker, partitions, seconds on the fleet, its limit."""

    stage: str
    units: int
    gpu_hours: float
    cpu_hours: float
    read: float
    shuffled: float
    written: float
    memory: float
    partitions: int
    wall_s: float
    limit: str


def make_plan(work: Workload, rates: Rates, fleet: Fleet) -> list[StagePlan]:
    """All stages of a run over `work`."""
    makers = (_embed, _graph, _rank, _select, _write, _report)
    return [maker(work, rates, fleet) for maker in makers]


def cost(plans: Sequence[StagePlan], fleet: Fleet) -> float:
    """Of the hours of devices that work; a fleet that stays up while others wait costs more."""
    return sum(plan.gpu_hours * fleet.gpu_price + plan.cpu_hours * fleet.cpu_price for plan in plans)


def lists(work: Workload) -> tuple[int, int]:
    """nlist, and nprobe for recall 0.95: 14, 18, 28 were measured at 1e5, 3e5, 1e6 rows."""
    from d2prune.knn.quantiser import default_nlist

    nlist = work.nlist or default_nlist(work.samples)
    nprobe = work.nprobe or round(14 * (max(work.samples, 1) / 1e5) ** 0.3)
    return nlist, max(1, min(nprobe, nlist))


def graph_seconds(work: Workload, rates: Rates) -> float:
    """Seconds of a core for the whole graph."""
    from d2prune.knn.quantiser import FLAT_LISTS, UPPER_PROBES

    per_row: float = work.samples
    if not work.exact:
        nlist, nprobe = lists(work)
        finding = nlist if nlist <= FLAT_LISTS else (1 + UPPER_PROBES) * math.sqrt(nlist)
        per_row = nprobe * work.samples / nlist + finding
    flop = 2.0 * work.samples * per_row * work.dimension * work.sides
    seconds = work.samples * rates.graph_row_s + flop / rates.graph_flops
    return seconds * (1.0 if in_memory(work) else rates.graph_shards)


def in_memory(work: Workload) -> bool:
    """Whether one worker builds the graph."""
    return work.exact or work.samples < WHOLE_BELOW


def _wall(stage: str, rates: Rates, limits: Mapping[str, float]) -> tuple[float, str]:
    """The slowest of what runs side by side, and its name."""
    name = max(limits, key=lambda limit: limits[limit])
    start = rates.start_s.get(stage, 0.0)
    return (limits[name] + start, name if limits[name] >= start else "start")


def _workers(fleet: Fleet, units: int) -> int:
    return max(1, min(fleet.cpus, units))


def _embed(work: Workload, rates: Rates, fleet: Fleet) -> StagePlan:
    read = work.samples * work.sample_bytes
    stored = work.stored or 2 * work.dimension
    written = work.samples * (2.0 * stored + 150.0)
    seconds = work.samples * rates.embed_s
    cores = _workers(fleet, work.shards)
    limits = {"store": (read + written) / rates.store_bytes_s / cores}
    if fleet.gpus:
        limits["GPU"] = seconds / min(fleet.gpus, work.shards)
        decoding = work.samples * rates.decode_s
        # Decoding runs in all cores of a worker's machine, not one per shard.
        limits["decoding"] = decoding / fleet.cpus
        hours = (seconds / 3600, decoding / 3600)
    else:
        limits["CPU"] = seconds / cores
        hours = (0.0, seconds / 3600)
    wall, limit = _wall("embed", rates, limits)
    memory = 2.5e9 + work.samples / max(work.shards, 1) * (2 * stored + 300)
    return StagePlan("embed", work.shards, *hours, read, 0.0, written, memory, 1, wall, limit)


def _graph(work: Workload, rates: Rates, fleet: Fleet) -> StagePlan:
    from d2prune.graph.params import choose_partitions

    row = work.dimension * work.sides * 2
    read, written = float(work.samples * row), work.samples * 2.0 * work.n_neighbors * 12
    seconds = graph_seconds(work, rates)
    if in_memory(work):
        wall, limit = _wall("graph", rates, {"one worker": seconds})
        memory = 4e8 + work.samples * row * 4.0
        return StagePlan("graph", 1, 0.0, seconds / 3600, read, 0.0, written, memory, 1, wall, limit)
    partitions = choose_partitions(work.samples * row)
    # Measured: 2.3, 3.2, 5.2 partitions of 4, 8, 16 with nprobe 17, 19, 25.
    nprobe = lists(work)[1]
    visits = min(float(partitions), 1 + 0.05 * math.log2(max(partitions, 1)) * (nprobe - 1))
    candidates = work.samples * visits * (work.n_neighbors + 1) * 12
    shuffled = work.samples * visits * row + candidates + work.samples * 2.0 * work.n_neighbors * 24
    cores = _workers(fleet, max(partitions, 1))
    limits = {
        "CPU": seconds / cores,
        "store": (4 * read + 2 * shuffled + written) / rates.store_bytes_s / _workers(fleet, work.shards),
    }
    if partitions < fleet.cpus:
        limits["partitions"] = limits.pop("CPU")
    wall, limit = _wall("graph", rates, limits)
    members = work.samples / partitions
    memory = 4e8 + members * row + members * visits * (12 * (work.n_neighbors + 1) + 8) + 65_536 * row
    units = 5 * work.shards + 2 * partitions + 2
    return StagePlan(
        "graph", units, 0.0, seconds / 3600, 4 * read, shuffled, written, memory, partitions, wall, limit
    )


def _rank(work: Workload, rates: Rates, fleet: Fleet) -> StagePlan:
    members = _workers(fleet, work.shards)
    edges = 2.0 * work.n_neighbors * work.samples
    # Scores and uids; ranks and the uids of suppressors.
    read, written = edges * 12 + work.samples * (4 + 17), work.samples * (28.0 + 17)
    # Partitions are runs of shards: nearly all edges are cut, about 19 messages of 12 bytes a node
    # were measured.
    shuffled = work.samples * 19 * 12.0 if members > 1 else 0.0
    seconds = work.samples * rates.rank_s * (1 if members == 1 else 4)
    limits = {"CPU": seconds / members, "store": (read + written) / rates.store_bytes_s / members}
    wall, limit = _wall("rank", rates, limits)
    # Measured at k = 5 on Ray, 1.25 million rows on each of four members: 770 bytes a row, with
    # letters in its store.
    memory = 4.5e8 + work.samples / members * (2 * work.n_neighbors * 60 + 200)
    return StagePlan(
        "rank", members, 0.0, seconds / 3600, read, shuffled, written, memory, members, wall, limit
    )


def _select(work: Workload, rates: Rates, fleet: Fleet) -> StagePlan:
    read, written = work.samples * 77.0, work.samples * 90.0
    seconds, cores = work.samples * rates.select_s, _workers(fleet, work.shards)
    limits = {"CPU": seconds / cores, "store": (read + written) / rates.store_bytes_s / cores}
    wall, limit = _wall("select", rates, limits)
    memory = 4e8 + work.samples / max(work.shards, 1) * 500
    return StagePlan("select", work.shards, 0.0, seconds / 3600, read, 0.0, written, memory, 1, wall, limit)


def _write(work: Workload, rates: Rates, fleet: Fleet) -> StagePlan:
    kept = round(work.samples * work.fraction)
    written = kept * work.sample_bytes + work.samples * 120.0
    read = kept * work.sample_bytes + work.samples * 250.0
    tars = -(-kept // work.samples_per_shard)
    seconds = kept * work.sample_bytes * rates.write_byte_s
    cores = _workers(fleet, tars)
    limits = {"CPU": seconds / cores, "store": (read + written) / rates.store_bytes_s / cores}
    if tars < fleet.cpus:
        limits["output tars"] = limits.pop("CPU")
    wall, limit = _wall("write", rates, limits)
    return StagePlan(
        "write", tars + work.shards, 0.0, seconds / 3600, read, 0.0, written, 6e8, 1, wall, limit
    )


def _report(work: Workload, rates: Rates, fleet: Fleet) -> StagePlan:
    seconds = work.samples * rates.report_s
    wall, limit = _wall("report", rates, {"one worker": seconds})
    return StagePlan("report", 1, 0.0, seconds / 3600, work.samples * 200.0, 0.0, 2e6, 1e9, 1, wall, limit)
