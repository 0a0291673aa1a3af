"""Where a stage runs: on Ray, or in this process because that is faster.

A local Ray takes eight seconds to start and each worker three, mostly for imports, which is longer than
the later stages of a small pool take in all. The estimates are those of `d2prune plan`. They err towards
Ray, and nothing of the result depends on the choice.
"""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from d2prune.config.model import RunConfig
from d2prune.estimate.costs import CPU_RATES, ESTIMATES, RAY_START_S, WORKER_START_S, Fleet, Rates
from d2prune.estimate.work import Workload
from d2prune.estimate.workload import SAMPLE_BYTES
from d2prune.inputs.find import SourceShard
from d2prune.inputs.tables.files import TableShard
from d2prune.stage.record import Stage, StageRun
from d2prune.store.artifacts import Manifest

log = logging.getLogger(__name__)

_LEAST_BYTES = 5_000
"""Bytes of a small sample in a tar. Most are larger, so that their number is estimated too high."""
_TABLE_BYTES_S = 20e6
"""Bytes of tables that one core imports in a second."""
_MOST_MEMORY = 4e9
"""Bytes that a stage may take in this process, which may run on a cluster's small head node."""
_GPU_STAGES = ("embed", "rescore", "graph")


@dataclass(frozen=True)
class Placement:
    """Estimated seconds of a stage in this process and on Ray."""

    here_s: float
    ray_s: float

    @property
    def is_here(self) -> bool:
        """Whether this process is faster."""
        return math.isfinite(self.here_s) and self.here_s <= self.ray_s


def fits_here(stage: Stage, run: StageRun) -> bool:
    """Whether a stage is faster in this process than on Ray; logs that it is."""
    if not stage.has_manifest:
        return True
    placed = place(stage.name, run.config, run.pool.shards, run.manifests, run.is_open)
    if placed.is_here:
        log.info(
            "%s: in this process, about %.1f s; on Ray about %.1f s", stage.name, placed.here_s, placed.ray_s
        )
    return placed.is_here


def place(
    stage: str,
    config: RunConfig,
    shards: Sequence[SourceShard],
    manifests: Mapping[str, Manifest],
    ray_is_open: bool,
    workers: int | None = None,
) -> Placement:
    """Estimate a stage on both.

    Args:
        stage: name of the stage.
        config: the configuration.
        shards: the input.
        manifests: the artifacts that are complete.
        ray_is_open: whether an earlier stage has started Ray.
        workers: workers that Ray can run at a time; default: what the configuration and this machine say.
    """
    if config.ray.num_gpus > 0 and stage in _GPU_STAGES:
        return Placement(math.inf, 0.0)
    here_s = (
        _embed_seconds(config, shards)
        if stage == "embed"
        else _stage_seconds(stage, config, shards, manifests)
    )
    start_s = WORKER_START_S + (0.0 if ray_is_open else RAY_START_S)
    return Placement(here_s, start_s + here_s / (workers or _count_workers(config)))


def _count_workers(config: RunConfig) -> int:
    """Workers that Ray has: of another cluster, as many as anyone could want."""
    is_local = config.ray.address is None and "RAY_ADDRESS" not in os.environ
    return config.ray.workers or (os.cpu_count() or 1 if is_local else 1_000)


def _embed_seconds(config: RunConfig, shards: Sequence[SourceShard]) -> float:
    tables = sum(shard.size for shard in shards if isinstance(shard, TableShard))
    samples = sum(shard.size for shard in shards if not isinstance(shard, TableShard)) / _LEAST_BYTES
    models = [model for _, model, _ in config.embed.named_models]
    # Of an unknown model, a sample may take a second.
    return tables / _TABLE_BYTES_S + samples * sum(1 / CPU_RATES.get(model, 1.0) for model in models)


def _stage_seconds(
    stage: str, config: RunConfig, shards: Sequence[SourceShard], manifests: Mapping[str, Manifest]
) -> float:
    """Seconds of a stage after embed on one core, by the plan's rates; infinite if it needs much memory."""
    embed = manifests["embed"]
    counters, facts = embed.counters, embed.units[0].facts if embed.units else {}
    dimensions = [*(facts.get("dimensions") or {}).values(), facts.get("dimension") or 0, 1]
    samples = counters.get("embedded", 0)
    work = Workload(
        samples=samples,
        sample_bytes=sum(shard.size for shard in shards) / max(samples, 1) or SAMPLE_BYTES,
        shards=max(len(embed.units), 1),
        dimension=max(dimensions),
        n_neighbors=config.graph.n_neighbors,
        exact=stage != "graph" or not _wants_lists(samples, config),
        fraction=config.select.fraction or 1.0,
        compared=2 * config.score.references * config.score.reference_size if config.pair_scores else 0,
        deduplicates=config.dedup.applies,
    )
    plan = ESTIMATES[stage](work, Rates(0.0), Fleet(cpus=1))
    return plan.wall_s if plan.memory <= _MOST_MEMORY else math.inf


def _wants_lists(samples: int, config: RunConfig) -> bool:
    # Loads torch, as the graph stage does.
    from d2prune.knn.in_memory import wants_lists

    return wants_lists(samples, config.graph.target_recall, config.graph.nprobe)
