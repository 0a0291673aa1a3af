"""Estimate the work, bytes, memory, time and cost of every stage, and what limits it.

Pure: takes a workload, rates and a fleet, returns one `StagePlan` per stage. Rates are seconds of
one worker: a core, or for `embed` a GPU if there is one. Without a calibration they are measured
(docs/results/plan.md) or published (`PUBLISHED_RATES`). The graph's work is counted the way its kernels
do it: every row is compared with the rows of nprobe lists of N / nlist rows each, plus a constant
per row. All other work is linear in samples or bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from d2prune.estimate.work import Workload


@dataclass(frozen=True)
class Rates:
    """Speed of one worker. Defaults were measured on one kind of machine (docs/results/).

    Attributes:
        embed_s: seconds per sample.
        decode_s: core seconds per sample, when a GPU embeds.
        import_row_s: seconds per row of a table, without its embeddings.
        import_byte_s: seconds per byte of its embeddings.
        graph_row_s: seconds per row, independent of its neighbours.
        graph_flops: floating-point operations per second of a core, in products of embeddings.
        graph_gpu_flops: of a GPU, where it compares every row with every other. A fifth of an H100's
            published float16 rate: an assumption.
        graph_shards: CPU time of the sharded graph relative to the graph in one worker's memory.
        rank_s: seconds per sample.
        select_s: seconds per sample.
        write_byte_s: seconds per byte written to tars.
        write_row_s: seconds per row of a table that is read for the tables of kept samples.
        report_s: seconds per sample.
        store_bytes_s: bytes per second that one worker reads from the store or writes to it.
        start_s: stage -> seconds before its first unit.
        source: origin of the rates, printed with the plan.
    """

    embed_s: float
    decode_s: float = 1 / 650
    import_row_s: float = 3.4e-6
    import_byte_s: float = 2e-9
    graph_row_s: float = 2.5e-5
    graph_flops: float = 1.2e11
    graph_gpu_flops: float = 2e14
    graph_shards: float = 2.5
    rank_s: float = 2.5e-6
    select_s: float = 1e-6
    write_byte_s: float = 1 / 223e6
    write_row_s: float = 6.5e-6
    report_s: float = 1e-6
    store_bytes_s: float = 88e6
    start_s: Mapping[str, float] = field(default_factory=dict)
    source: str = ""


_RESCORE_SHARE = 0.6
"""Share of `graph_flops`, the rate of bfloat16 products, that the float32 products of rescore reach."""
_DEDUP_S, _DEDUP_BYTES = 7e-6, 550.0
"""CPU seconds and bytes of memory per sample, measured by benchmarks/dedup.py."""
RAY_START_S, WORKER_START_S = 8.0, 3.0
"""Seconds that a local Ray and a worker take to start, measured on 2 cores (docs/results/start.md)."""
CPU_RATES = {"demo": 130.0}
"""Samples/s of one core, with the models for which a pool may be so small that Ray does not pay."""
PUBLISHED_RATES = {"ViT-B-32": 2_500, "ViT-L-14": 312}
"""Samples/s of one A100, published by clip-retrieval."""


@dataclass(frozen=True)
class Fleet:
    """The machines of a run: GPUs and cores, and their prices per hour."""

    gpus: int = 0
    cpus: int = 16
    gpu_price: float = 0.0
    cpu_price: float = 0.0


@dataclass(frozen=True)
class StagePlan:
    """The estimate for one stage.

    Attributes:
        stage: name.
        units: number of units of work.
        gpu_hours: GPU hours in use.
        cpu_hours: core hours in use.
        read: bytes read from the store.
        shuffled: bytes exchanged between workers through the store.
        written: bytes written to the store.
        memory: bytes of memory of the largest worker.
        partitions: number of partitions.
        wall_s: seconds on the fleet.
        limit: the resource that decides `wall_s`.
    """

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
    """Estimate every stage that a run has, in order."""
    return [
        estimate(work, rates, fleet)
        for stage, estimate in ESTIMATES.items()
        if (stage != "rescore" or work.compared) and (stage != "dedup" or work.deduplicates)
    ]


def total_cost(plans: Sequence[StagePlan], fleet: Fleet) -> float:
    """Cost of the device hours in use. A fleet that stays up while devices are idle costs more."""
    return sum(plan.gpu_hours * fleet.gpu_price + plan.cpu_hours * fleet.cpu_price for plan in plans)


def choose_lists(work: Workload) -> tuple[int, int]:
    """The nlist and nprobe of the graph.

    The default nprobe reaches recall 0.95: 9, 16, 30 and 53 were measured at 1e5, 3e5, 1e6 and 1.28e7
    rows. Lists grow beyond a million rows, so fewer more are needed.
    """
    from d2prune.knn.quantiser import default_nlist

    rows = max(work.samples, 1)
    nlist = work.nlist or default_nlist(work.samples)
    exponent = 0.3 if rows < 1e5 else 0.52
    default = 9 * (min(rows, 1e6) / 1e5) ** exponent * (max(rows, 1e6) / 1e6) ** 0.22
    nprobe = work.nprobe or round(default)
    return nlist, max(1, min(nprobe, nlist))


def graph_seconds(work: Workload, rates: Rates) -> float:
    """Core seconds of the graph; none without edges."""
    if not work.n_neighbors:
        return 0.0
    seconds = work.samples * rates.graph_row_s + _count_graph_flop(work) / rates.graph_flops
    return seconds * (1.0 if fits_one_worker(work) else rates.graph_shards)


def _count_graph_flop(work: Workload) -> float:
    from d2prune.knn.list_tree import count_candidates, count_cells
    from d2prune.knn.quantiser import FLAT_LISTS

    products_per_row: float = work.samples
    if not work.exact:
        nlist, nprobe = choose_lists(work)
        centroids = float(nlist)
        if nlist > FLAT_LISTS:
            # int8 codes are multiplied in half the time.
            centroids = (count_cells(nlist) + count_candidates(nlist, nprobe)) / 2
        products_per_row = nprobe * work.samples / nlist + centroids
    return 2.0 * work.samples * products_per_row * work.dimension * work.sides


def fits_one_worker(work: Workload) -> bool:
    """Whether one worker builds the graph in memory."""
    from d2prune.graph.params import Layout

    return work.exact or work.samples < Layout.whole_below


def _find_limit(stage: str, rates: Rates, seconds: Mapping[str, float]) -> tuple[float, str]:
    """Seconds of the stage, and the slowest of the resources that work in parallel."""
    slowest = max(seconds, key=lambda resource: seconds[resource])
    start = rates.start_s.get(stage, 0.0)
    return (seconds[slowest] + start, slowest if seconds[slowest] >= start else "start")


def _count_workers(fleet: Fleet, units: int) -> int:
    return max(1, min(fleet.cpus, units))


def _estimate_embed(work: Workload, rates: Rates, fleet: Fleet) -> StagePlan:
    if work.tables:
        return _estimate_import(work, rates, fleet)
    read = work.samples * work.sample_bytes
    stored_values = work.stored_values or 2 * work.dimension
    written = work.samples * (2.0 * stored_values + 150.0)
    seconds = work.samples * rates.embed_s
    workers = _count_workers(fleet, work.shards)
    limits = {"store": (read + written) / rates.store_bytes_s / workers}
    if fleet.gpus:
        limits["GPU"] = seconds / min(fleet.gpus, work.shards)
        decoding = work.samples * rates.decode_s
        # A worker decodes on all cores of its machine, not on one per shard.
        limits["decoding"] = decoding / fleet.cpus
        hours = (seconds / 3600, decoding / 3600)
    else:
        limits["CPU"] = seconds / workers
        hours = (0.0, seconds / 3600)
    wall, limit = _find_limit("embed", rates, limits)
    memory = 2.5e9 + work.samples / max(work.shards, 1) * (2 * stored_values + 300)
    return StagePlan("embed", work.shards, *hours, read, 0.0, written, memory, 1, wall, limit)


def _estimate_import(work: Workload, rates: Rates, fleet: Fleet) -> StagePlan:
    values = work.stored_values or work.sides * work.dimension
    row = work.value_bytes * values
    read = work.samples * (row + work.sample_bytes)
    written = work.samples * (60.0 + (2.0 * values if work.copies else 0.0))
    seconds = work.samples * (rates.import_row_s + row * rates.import_byte_s)
    workers = _count_workers(fleet, work.shards)
    limits = {"CPU": seconds / workers, "store": (read + written) / rates.store_bytes_s / workers}
    wall, limit = _find_limit("embed", rates, limits)
    hours = seconds / 3600
    return StagePlan("embed", work.shards, 0.0, hours, read, 0.0, written, 4e8, 1, wall, limit)


def _estimate_rescore(work: Workload, rates: Rates, fleet: Fleet) -> StagePlan:
    row = 4 * work.dimension
    read, written = 2.0 * work.samples * row, work.samples * 12.0
    seconds = work.samples * work.compared * 2 * work.dimension / (_RESCORE_SHARE * rates.graph_flops)
    workers = _count_workers(fleet, work.shards)
    limits = {"CPU": seconds / workers, "store": (read + written) / rates.store_bytes_s / workers}
    wall, limit = _find_limit("rescore", rates, limits)
    memory = 8e8 + 3 * work.compared * row + work.samples / max(work.shards, 1) * 5 * row
    units, hours = 2 * work.shards, seconds / 3600
    return StagePlan("rescore", units, 0.0, hours, read, 0.0, written, memory, 1, wall, limit)


def _estimate_graph(work: Workload, rates: Rates, fleet: Fleet) -> StagePlan:
    from d2prune.graph.params import choose_partitions

    if not work.n_neighbors:
        wall, limit = _find_limit("graph", rates, {"one worker": 0.0})
        return StagePlan("graph", work.shards, 0.0, 0.0, 0.0, 0.0, work.samples * 1.0, 4e8, 1, wall, limit)
    row = work.row_bytes
    read, written = work.samples * row, work.samples * 2.0 * work.n_neighbors * 12
    seconds = graph_seconds(work, rates)
    hours = seconds / 3600
    if fits_one_worker(work):
        memory = 4e8 + work.samples * row * 4.0
        gpu_seconds, limits = 0.0, {"one worker": seconds}
        on_gpu = _count_graph_flop(work) / rates.graph_gpu_flops
        if work.exact and fleet.gpus and on_gpu < seconds:
            # Candidates get their distances, and rows are rounded, on the CPU.
            gpu_seconds, hours = on_gpu, work.samples * rates.graph_row_s / 3600
            limits = {"one GPU": on_gpu, "one worker": hours * 3600}
        wall, limit = _find_limit("graph", rates, limits)
        gpu_hours = gpu_seconds / 3600
        return StagePlan("graph", 1, gpu_hours, hours, read, 0.0, written, memory, 1, wall, limit)
    partitions = choose_partitions(round(work.samples * row), fleet.cpus)
    # Partitions that a row visits. Measured: 2.3 of 4, 5.1 of 16 and 10.0 of 64 at 1e6 rows, 5.6 of 64
    # at 1e5, 8.0 at 3e5 and 10.4 at 1.28e7; the fit is within 16 %.
    nprobe = choose_lists(work)[1]
    visits = 1.2 * partitions**0.5 * (min(work.samples, 1e6) / 1e6) ** 0.16
    visits = max(1.0, min(visits, float(partitions), float(nprobe)))
    candidates = work.samples * visits * (work.n_neighbors + 1) * 12
    shuffled = work.samples * visits * row + candidates + work.samples * 2.0 * work.n_neighbors * 24
    store_workers = _count_workers(fleet, work.shards)
    limits = {
        # With fewer partitions than cores, some cores are idle.
        "CPU" if partitions >= fleet.cpus else "partitions": seconds / _count_workers(fleet, partitions),
        "store": (4 * read + 2 * shuffled + written) / rates.store_bytes_s / store_workers,
    }
    wall, limit = _find_limit("graph", rates, limits)
    members = work.samples / partitions
    memory = 4e8 + members * row + members * visits * (12 * (work.n_neighbors + 1) + 8) + 65_536 * row
    units = 5 * work.shards + 2 * partitions + 2
    return StagePlan("graph", units, 0.0, hours, 4 * read, shuffled, written, memory, partitions, wall, limit)


def _estimate_dedup(work: Workload, rates: Rates, fleet: Fleet) -> StagePlan:
    members = _count_workers(fleet, work.shards)
    # Reads the graph three times, then scores, image hashes and uids; writes the graph and its table.
    edges = 2.0 * work.n_neighbors * work.samples * 12
    read, written = 3 * edges + work.samples * (4 + 32 + 17), edges + work.samples * 20.0
    shuffled = work.samples * 48.0
    seconds = work.samples * _DEDUP_S
    limits = {"CPU": seconds / members, "store": (read + written) / rates.store_bytes_s / members}
    wall, limit = _find_limit("dedup", rates, limits)
    memory = 4.5e8 + work.samples / members * _DEDUP_BYTES
    hours, units = seconds / 3600, members + work.shards
    return StagePlan("dedup", units, 0.0, hours, read, shuffled, written, memory, members, wall, limit)


def _estimate_rank(work: Workload, rates: Rates, fleet: Fleet) -> StagePlan:
    members = _count_workers(fleet, work.shards)
    edges = 2.0 * work.n_neighbors * work.samples
    # Reads edges, scores and uids; writes ranks and the uids of suppressors.
    read, written = edges * 12 + work.samples * (4 + 17), work.samples * (28.0 + 17)
    # A partition is a run of shards, so nearly all edges cross partitions. About 19 messages of 12
    # bytes per node were measured.
    shuffled = work.samples * 19 * 12.0 if members > 1 else 0.0
    seconds = work.samples * rates.rank_s * (1 if members == 1 else 4)
    limits = {"CPU": seconds / members, "store": (read + written) / rates.store_bytes_s / members}
    wall, limit = _find_limit("rank", rates, limits)
    # Measured on Ray at k = 5, with 1.25 million rows on each of four members: 770 bytes a row,
    # including messages in Ray's object store.
    memory = 4.5e8 + work.samples / members * (2 * work.n_neighbors * 60 + 200)
    hours = seconds / 3600
    return StagePlan("rank", members, 0.0, hours, read, shuffled, written, memory, members, wall, limit)


def _estimate_select(work: Workload, rates: Rates, fleet: Fleet) -> StagePlan:
    read, written = work.samples * 77.0, work.samples * 90.0
    seconds, workers = work.samples * rates.select_s, _count_workers(fleet, work.shards)
    limits = {"CPU": seconds / workers, "store": (read + written) / rates.store_bytes_s / workers}
    wall, limit = _find_limit("select", rates, limits)
    memory = 4e8 + work.samples / max(work.shards, 1) * 500
    return StagePlan("select", work.shards, 0.0, seconds / 3600, read, 0.0, written, memory, 1, wall, limit)


def _estimate_write(work: Workload, rates: Rates, fleet: Fleet) -> StagePlan:
    if work.tables:
        return _estimate_tables(work, rates, fleet)
    kept = round(work.samples * work.fraction)
    written = kept * work.sample_bytes + work.samples * 120.0
    read = kept * work.sample_bytes + work.samples * 250.0
    tars = -(-kept // work.samples_per_shard)
    seconds = kept * work.sample_bytes * rates.write_byte_s
    workers = _count_workers(fleet, tars)
    limits = {
        # With fewer output tars than cores, some cores are idle.
        "CPU" if tars >= fleet.cpus else "output tars": seconds / workers,
        "store": (read + written) / rates.store_bytes_s / workers,
    }
    wall, limit = _find_limit("write", rates, limits)
    units = tars + work.shards
    return StagePlan("write", units, 0.0, seconds / 3600, read, 0.0, written, 6e8, 1, wall, limit)


def _estimate_tables(work: Workload, rates: Rates, fleet: Fleet) -> StagePlan:
    """The write stage for tables: tables of kept samples, decisions and the subset file."""
    read = work.samples * (work.sample_bytes + 250.0)
    written = work.samples * (120.0 + work.fraction * (work.sample_bytes + 90.0))
    seconds, workers = work.samples * rates.write_row_s, _count_workers(fleet, work.shards)
    limits = {"CPU": seconds / workers, "store": (read + written) / rates.store_bytes_s / workers}
    wall, limit = _find_limit("write", rates, limits)
    hours = seconds / 3600
    return StagePlan("write", work.shards, 0.0, hours, read, 0.0, written, 6e8, 1, wall, limit)


def _estimate_report(work: Workload, rates: Rates, fleet: Fleet) -> StagePlan:
    seconds = work.samples * rates.report_s
    wall, limit = _find_limit("report", rates, {"one worker": seconds})
    return StagePlan("report", 1, 0.0, seconds / 3600, work.samples * 200.0, 0.0, 2e6, 1e9, 1, wall, limit)


ESTIMATES: Mapping[str, Callable[[Workload, Rates, Fleet], StagePlan]] = {
    "embed": _estimate_embed,
    "rescore": _estimate_rescore,
    "graph": _estimate_graph,
    "dedup": _estimate_dedup,
    "rank": _estimate_rank,
    "select": _estimate_select,
    "write": _estimate_write,
    "report": _estimate_report,
}
"""Stage -> its estimate, in the order of a run."""
