"""Turn a configuration into a workload and default rates.

Lists the input; reads none of it.
"""

from dataclasses import dataclass

from d2prune.config.model import RunConfig
from d2prune.d2.gamma import check_gamma
from d2prune.errors import UserError
from d2prune.estimate.costs import PUBLISHED_RATES, Fleet, Rates, Workload
from d2prune.store import schemas

SAMPLE_BYTES = 35_000
"""Mean bytes of a sample in DataComp's tars: 450 GB for 12.8 million samples."""
SHARD_SAMPLES = 10_000
"""Samples assumed in each input tar if only the number of samples is given."""


@dataclass(frozen=True)
class PoolFacts:
    """Measured properties of a pool.

    Attributes:
        sample_bytes: mean bytes of a sample in its tar.
        dimensions: dimension of each model's embeddings, in the order of the configuration.
    """

    sample_bytes: float
    dimensions: tuple[int, ...]


def make_workload(config: RunConfig, samples: int | None, facts: PoolFacts | None = None) -> Workload:
    """Describe the work of a run.

    Args:
        config: the configuration.
        samples: number of samples; None: estimated from the sizes of the tars in `config.input`.
        facts: measured properties of the pool. Default: DataComp's sample size and the dimensions
            that open_clip knows.

    Raises:
        UserError: the input does not exist, or the configuration names no model.
    """
    from d2prune.inputs.shards import expand_input
    from d2prune.knn.in_memory import wants_lists

    facts = facts or PoolFacts(SAMPLE_BYTES, _read_dimensions(config))
    if samples is None:
        listed = expand_input(config.input, config.written)
        shards = len(listed)
        samples = max(1, round(sum(shard.size for shard in listed) / facts.sample_bytes))
    else:
        shards = max(1, -(-samples // SHARD_SAMPLES))
    select, graph = config.select, config.graph
    names = [*config.embed.models]
    return Workload(
        samples=samples,
        sample_bytes=facts.sample_bytes,
        shards=shards,
        dimension=facts.dimensions[names.index(graph.model) if graph.model else 0],
        stored_values=2 * sum(facts.dimensions),
        sides=len(graph.features.split("+")),
        n_neighbors=graph.n_neighbors,
        exact=not wants_lists(samples, graph.target_recall, graph.nprobe),
        nlist=graph.nlist,
        nprobe=graph.nprobe,
        fraction=select.fraction or min(1.0, (select.size or samples) / samples),
        samples_per_shard=config.write.samples_per_shard,
        compared=_count_compared(config, samples),
        deduplicates=config.dedup.applies,
    )


def _count_compared(config: RunConfig, samples: int) -> int:
    """Count the rows that the rescore stage multiplies each sample with; the target set is not read."""
    if schemas.S_CLIP_LOSS not in config.pair_scores:
        return 1 if config.pair_scores else 0
    return 2 * config.score.references * min(config.score.reference_size, samples)


def describe_selection(config: RunConfig) -> str:
    """The method and its settings, in one line."""
    select = config.select
    if select.method != "d2":
        return select.method
    gammas = (
        check_gamma("select.gamma_forward", select.gamma_forward),
        check_gamma("select.gamma_reverse", select.gamma_reverse),
    )
    forward, reverse = (str(gamma) if isinstance(gamma, str) else f"{gamma:g}" for gamma in gammas)
    return f"d2, k = {config.graph.n_neighbors}, gamma {forward} forward and {reverse} reverse"


def default_rates(config: RunConfig, embed_rate: float | None, fleet: Fleet) -> Rates:
    """The rates to use without a calibration.

    Args:
        config: the configuration.
        embed_rate: samples/s of one embedding worker; None: the published rate of the model.
        fleet: published rates apply to GPUs only.

    Raises:
        UserError: no rate is known for the model.
    """
    models = [model for _, model, _ in config.embed.named_models]
    if embed_rate is not None:
        source = f"embed: {embed_rate:g} samples/s per worker, as given"
    elif fleet.gpus and models and all(model in PUBLISHED_RATES for model in models):
        embed_rate = 1 / sum(1 / PUBLISHED_RATES[model] for model in models)
        source = f"embed: {embed_rate:.4g} samples/s, published for one A100"
    else:
        raise UserError(
            f"embed.model {', '.join(models) or None}: no rate is known (known on GPUs: "
            f"{', '.join(PUBLISHED_RATES)}); expected --embed-rate SAMPLES_PER_SECOND, or --calibrate"
        )
    return Rates(1 / embed_rate, source=f"{source}; other stages: docs/results.md")


def _read_dimensions(config: RunConfig) -> tuple[int, ...]:
    """Dimension of each model's embeddings; 512 for models that open_clip does not know.

    Raises:
        UserError: the configuration names no model.
    """
    if not config.embed.named_models:
        raise UserError(
            "embed.model is missing: `d2prune plan` estimates runs over tars; importing tables of embeddings "
            "takes minutes"
        )
    from d2prune.embed.model.sources import import_open_clip

    known = [import_open_clip().get_model_config(model) or {} for _, model, _ in config.embed.named_models]
    return tuple(int(model.get("embed_dim", 512)) for model in known)
