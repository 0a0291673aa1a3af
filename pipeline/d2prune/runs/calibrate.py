"""Measure the rates of all stages by filtering the first shards of a pool.

One worker on this machine filters one shard to compile kernels, then one shard and several shards
again: the difference is the cost of a sample. A fresh process that filters one shard measures the
cost of starting. Everything is written to temporary folders and deleted.
"""

import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING

from d2prune.config.model import RunConfig
from d2prune.errors import UserError
from d2prune.estimate.costs import Rates, graph_seconds
from d2prune.estimate.workload import PoolFacts, make_workload

if TYPE_CHECKING:
    from d2prune.runs.driver import RunResult


@dataclass(frozen=True)
class Calibration:
    """Rates and properties of a pool, measured on a few of its shards."""

    rates: Rates
    pool: PoolFacts


def calibrate(config: RunConfig, shards: int) -> Calibration:
    """Filter the first `shards` shards of the input and measure every stage.

    Raises:
        UserError: there are fewer than two shards, or the configuration names no model.
    """
    from d2prune.inputs.shards import expand_input
    from d2prune.store import patterns

    if not config.embed.named_models:
        raise UserError(
            "--calibrate: found no embed.model, so the input is tables of embeddings; expected tars; without "
            "--calibrate, plan uses measured rates"
        )
    found = expand_input(config.input, config.written)[:shards]
    urls = [patterns.quote(shard.url) for shard in found]
    if len(urls) < 2:
        raise UserError(f"--calibrate {shards}: found {len(urls)} shards to filter; expected at least 2")
    # A budget by score or size may keep none of so few samples; a fraction keeps some.
    select = config.select.model_copy(update={"fraction": 0.3, "size": None, "min_score": None})
    trial = config.model_copy(update={"select": select})
    _filter_shards(trial, urls[:1])
    few, many = _filter_shards(trial, urls[:1]), _filter_shards(trial, urls)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        cold = process.submit(_time_stages, trial, urls[:1]).result()

    pool = _measure_pool(config, many)
    first_amounts, last_amounts = _count_work(config, few, pool), _count_work(config, many, pool)
    slopes, starts = {}, {}
    for stage in many.seconds:
        first, last = first_amounts[stage], last_amounts[stage]
        slope = (many.seconds[stage] - few.seconds[stage]) / max(last - first, 1e-9)
        # Where a shard costs milliseconds the difference is noise; a share of the total bounds it.
        slopes[stage] = max(slope, 0.1 * many.seconds[stage] / last)
        starts[stage] = max(0.0, cold[stage] - slopes[stage] * first)
    embedded = many.manifests["embed"].counters["embedded"]
    source = f"calibrated on {embedded} samples of {len(urls)} shards, one worker of this machine"
    return Calibration(_make_rates(slopes, starts, source), pool)


def _measure_pool(config: RunConfig, result: "RunResult") -> PoolFacts:
    embed = result.manifests["embed"]
    facts = embed.units[0].facts
    # The dimensions of several models are stored by name, with sorted keys.
    by_name = facts.get("dimensions")
    dimensions = tuple(by_name[name] for name in config.embed.models) if by_name else (facts["dimension"],)
    return PoolFacts(sum(shard.size for shard in result.shards) / embed.counters["read"], dimensions)


def _count_work(config: RunConfig, result: "RunResult", pool: PoolFacts) -> dict[str, float]:
    """The amount of work that the time of each stage of a run is proportional to."""
    samples = result.manifests["embed"].counters["embedded"]
    graph = graph_seconds(make_workload(config, samples, pool), Rates(1.0))
    written = result.manifests["write"].counters["written"] * pool.sample_bytes
    return dict.fromkeys(result.seconds, float(samples)) | {"graph": graph, "write": written}


def _make_rates(slopes: dict[str, float], starts: dict[str, float], source: str) -> Rates:
    """Rates from seconds per amount of work; the graph's slope is relative to the default rates."""
    defaults = Rates(1.0)
    return Rates(
        embed_s=slopes["embed"],
        decode_s=slopes["embed"],
        graph_row_s=defaults.graph_row_s * slopes["graph"],
        graph_flops=defaults.graph_flops / slopes["graph"],
        rank_s=slopes["rank"],
        select_s=slopes["select"],
        write_byte_s=slopes["write"],
        report_s=slopes["report"],
        start_s=starts,
        source=source,
    )


def _filter_shards(config: RunConfig, urls: Sequence[str]) -> "RunResult":
    """Filter some tars with one worker, in temporary folders."""
    from d2prune.execution import InProcess
    from d2prune.runs.driver import run

    with tempfile.TemporaryDirectory(prefix="d2prune-plan-") as folder:
        folders = {"work_dir": f"{folder}/work", "output": f"{folder}/output"}
        return run(config.model_copy(update={"input": list(urls), **folders}), InProcess())


def _time_stages(config: RunConfig, urls: Sequence[str]) -> dict[str, float]:
    """Seconds of each stage; runs in a fresh process."""
    return dict(_filter_shards(config, urls).seconds)
