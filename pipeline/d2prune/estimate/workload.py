"""`d2prune plan`: a configuration and a listing, or a number of samples, become a workload; the plan is printed.

Reads the listing of the input only, unless asked to calibrate: then the first shards are really
filtered, in temporary folders, by one worker of this machine: once to compile what is compiled
once; again, and with more shards, which tells what a sample costs; and in a fresh process, which
tells what starting does.
"""

import dataclasses
import logging
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING

from d2prune.config.model import RunConfig
from d2prune.errors import UserError
from d2prune.estimate.costs import (
    DEFAULTS,
    STAGES,
    Fleet,
    Rates,
    StagePlan,
    Workload,
    cost,
    graph_seconds,
    make_plan,
)

if TYPE_CHECKING:
    from d2prune.runs.driver import RunResult

log = logging.getLogger(__name__)

SAMPLE_BYTES = 35_000
"""Of a sample in DataComp's tars: 450 GB for 12.8 million."""
SHARD_SAMPLES = 10_000


@dataclass(frozen=True)
class Calibrated:
    """What a real run of a few shards showed."""

    rates: Rates
    sample_bytes: float
    dimensions: tuple[int, ...]


def workload(config: RunConfig, samples: int | None, found: Calibrated | None = None) -> Workload:
    """What a run of `config` has to do.

    Args:
        config: the run.
        samples: of the pool; None: from the sizes of the tars that `config.input` names.
        found: from `calibrate`: bytes per sample and dimensions as they are.
    """
    sample_bytes: float = found.sample_bytes if found else SAMPLE_BYTES
    if samples is None:
        from d2prune.inputs.shards import expand_input

        listed = expand_input(config.input)
        shards = len(listed)
        samples = max(1, round(sum(shard.size for shard in listed) / sample_bytes))
    else:
        shards = max(1, -(-samples // SHARD_SAMPLES))
    select, graph = config.select, config.graph
    # Lists are chosen from 5,000 rows on (graph.knn.EXACT_BELOW), never without a target to reach.
    from d2prune.knn.build import wants_lists

    dimensions = found.dimensions if found else _dimensions(config)
    names = [*config.embed.models]
    return Workload(
        samples=samples,
        sample_bytes=sample_bytes,
        shards=shards,
        dimension=dimensions[names.index(graph.model) if graph.model else 0],
        stored=2 * sum(dimensions),
        sides=len(graph.features.split("+")),
        n_neighbors=graph.n_neighbors,
        exact=not wants_lists(samples, graph.target_recall, graph.nprobe),
        nlist=graph.nlist,
        nprobe=graph.nprobe,
        fraction=select.fraction or min(1.0, (select.size or samples) / samples),
        samples_per_shard=config.write.samples_per_shard,
    )


def default_rates(config: RunConfig, embed_rate: float | None, fleet: Fleet) -> Rates:
    """Rates without a calibration.

    Raises:
        UserError: nothing is known about the model.
    """
    models = [model for _, model, _ in config.embed.named_models]
    if embed_rate is not None:
        source = f"embed: {embed_rate:g} samples/s per worker as given"
    elif fleet.gpus and models and all(model in DEFAULTS for model in models):
        embed_rate = 1 / sum(1 / DEFAULTS[model] for model in models)
        source = f"embed: {embed_rate:.4g} samples/s, from what is published for one A100"
    else:
        known = ", ".join(DEFAULTS)
        raise UserError(
            f"embed.model {', '.join(models) or None}: no rate is known for it here (on GPUs: {known}); "
            "give --embed-rate SAMPLES_PER_SECOND of one worker, or --calibrate"
        )
    return Rates(1 / embed_rate, source=f"{source}; other stages: docs/results.md")


def calibrate(config: RunConfig, shards: int) -> Calibrated:
    """Filter the first shards of the input for real and measure every stage.

    Raises:
        UserError: there are fewer than two shards.
    """
    from d2prune.inputs.shards import expand_input

    listed = [shard.url for shard in expand_input(config.input)[:shards]]
    if len(listed) < 2:
        raise UserError(
            f"--calibrate {shards}: the input has {len(listed)} shards; expected 2 or more of them"
        )
    # A few samples may leave nothing to plan on where a score or a size is the budget; a share does not.
    select = config.select.model_copy(update={"fraction": 0.3, "size": None, "min_score": None})

    trial = config.model_copy(update={"select": select})
    _filter(trial, listed[:1])
    few, many = _filter(trial, listed[:1]), _filter(trial, listed)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        cold = process.submit(_seconds, trial, listed[:1]).result()
    counts = [result.manifests["embed"].counters["embedded"] for result in (few, many)]
    sample_bytes = sum(shard.size for shard in many.shards) / many.manifests["embed"].counters["read"]
    kept = [result.manifests["write"].counters["written"] * sample_bytes for result in (few, many)]
    facts = many.manifests["embed"].units[0].facts
    # Facts are stored with their keys sorted.
    by_name = facts.get("dimensions")
    dimensions = tuple(by_name[name] for name in config.embed.models) if by_name else (facts["dimension"],)
    found = Calibrated(Rates(1.0), sample_bytes, dimensions)
    graphs = [graph_seconds(workload(config, count, found), Rates(1.0)) for count in counts]
    amounts = {"graph": graphs, "write": kept}
    slopes, starts = {}, {}
    for stage in STAGES:
        first, last = amounts.get(stage, counts)
        slope = (many.seconds[stage] - few.seconds[stage]) / max(last - first, 1e-9)
        # What one more shard costs drowns in noise where it is milliseconds; a share of the whole bounds it.
        slopes[stage] = max(slope, 0.1 * many.seconds[stage] / last)
        starts[stage] = max(0.0, cold[stage] - slopes[stage] * first)
    defaults = Rates(1.0)
    rates = Rates(
        embed_s=slopes["embed"],
        decode_s=slopes["embed"],
        graph_row_s=defaults.graph_row_s * slopes["graph"],
        graph_flops=defaults.graph_flops / slopes["graph"],
        rank_s=slopes["rank"],
        select_s=slopes["select"],
        write_byte_s=slopes["write"],
        report_s=slopes["report"],
        start_s=starts,
        source=f"calibrated on {counts[1]} samples of {len(listed)} shards, one worker of this machine",
    )
    return dataclasses.replace(found, rates=rates)


def _filter(config: RunConfig, urls: Sequence[str]) -> "RunResult":
    """Filter some tars by one worker, and leave nothing behind."""
    from d2prune.execution import InProcess
    from d2prune.runs.driver import run

    with tempfile.TemporaryDirectory(prefix="d2prune-plan-") as folder:
        place = {"work_dir": f"{folder}/work", "output": f"{folder}/output"}
        return run(config.model_copy(update={"input": list(urls), **place}), InProcess())


def _seconds(config: RunConfig, urls: Sequence[str]) -> dict[str, float]:
    """Of each stage, in a process that did nothing before."""
    return dict(_filter(config, urls).seconds)


def _dimensions(config: RunConfig) -> tuple[int, ...]:
    """Of each model's embeddings; 512 where open_clip does not know it.

    Raises:
        UserError: there is no model: tables of embeddings need none, and no plan.
    """
    if not config.embed.named_models:
        raise UserError(
            "embed.model is missing: a plan is for tars; importing tables of embeddings takes minutes"
        )
    from d2prune.embed.model.sources import import_open_clip

    known = [import_open_clip().get_model_config(model) or {} for _, model, _ in config.embed.named_models]
    return tuple(int(config.get("embed_dim", 512)) for config in known)


def show(work: Workload, rates: Rates, fleet: Fleet) -> list[StagePlan]:
    """Print the plan on standard output and return it."""
    plans = make_plan(work, rates, fleet)
    price = (
        f", {fleet.gpu_price:g} and {fleet.cpu_price:g} per GPU and core hour" if cost(plans, fleet) else ""
    )
    print(
        f"{work.samples:,} samples in {work.shards:,} shards, {_bytes(work.samples * work.sample_bytes)}; "
        f"{fleet.gpus} GPUs, {fleet.cpus} cores{price}"
    )
    print(f"rates: {rates.source}\n")
    head = (
        "stage",
        "units",
        "GPU h",
        "CPU h",
        "read",
        "shuffled",
        "written",
        "worker",
        "partitions",
        "wall",
        "limit",
    )
    rows = [
        (
            plan.stage,
            f"{plan.units:,}",
            f"{plan.gpu_hours:,.2f}",
            f"{plan.cpu_hours:,.2f}",
            _bytes(plan.read),
            _bytes(plan.shuffled),
            _bytes(plan.written),
            _bytes(plan.memory),
            f"{plan.partitions:,}",
            _time(plan.wall_s),
            plan.limit,
        )
        for plan in plans
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in (head, *rows):
        print("  ".join(f"{text:>{width}}" for text, width in zip(row, widths, strict=True)))
    slowest = max(plans, key=lambda plan: plan.wall_s)
    print(f"\n{'wall time':<12}{_time(sum(plan.wall_s for plan in plans))}")
    if price:
        print(f"{'cost':<12}{cost(plans, fleet):,.2f} for the hours in use")
    print(f"{'memory':<12}{_bytes(max(plan.memory for plan in plans))} for the largest worker")
    print(f"{'limit':<12}{slowest.limit}, in {slowest.stage}")
    return plans


def _bytes(amount: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            return f"{amount:,.0f} {unit}" if amount >= 10 or unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError("unreachable")


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
