"""Turn a configuration into a workload and default rates.

Lists the input; reads none of it but headers of the first table.
"""

from dataclasses import dataclass, replace

from d2prune import store
from d2prune.config.model import RunConfig
from d2prune.d2.gamma import FORWARD_MULTIPLE, REVERSE_MULTIPLE, check_gamma
from d2prune.errors import UserError
from d2prune.estimate.costs import PUBLISHED_RATES, Fleet, Rates
from d2prune.estimate.work import Workload
from d2prune.store import schemas

SAMPLE_BYTES = 35_000
"""Mean bytes of a sample in DataComp's tars: 450 GB for 12.8 million samples."""
SHARD_SAMPLES = 10_000
"""Samples assumed in each input tar if only the number of samples is given."""


TABLE_ROW_BYTES = 250
"""Mean bytes of a row of DataComp's metadata, without its embeddings."""
TABLE_DIMENSION = 768
"""Of the embeddings in DataComp's metadata that are read by default."""


@dataclass(frozen=True)
class PoolFacts:
    """Measured properties of a pool.

    Attributes:
        sample_bytes: mean bytes of a sample in its tar, or of a row of a table without embeddings.
        dimensions: dimension of each model's embeddings, in the order of the configuration.
        samples: their number, as far as the listed input shows; 0: not known.
        shards: tars, or parts of tables; 0: not known.
        tables: whether the pool is tables of embeddings.
        n_sides: embeddings of a row that are read.
        copies: see `Workload`.
        value_bytes: see `Workload`.
    """

    sample_bytes: float
    dimensions: tuple[int, ...]
    samples: int = 0
    shards: int = 0
    tables: bool = False
    n_sides: int = 2
    copies: bool = False
    value_bytes: float = 2.0


def make_workload(config: RunConfig, samples: int | None, facts: PoolFacts | None = None) -> Workload:
    """Describe the work of a run.

    Args:
        config: the configuration. Without a model, the pool is tables of embeddings.
        samples: number of samples; None: estimated from the files in `config.input`.
        facts: measured properties of the pool. Default: of tars, DataComp's sample size and the
            dimensions that open_clip knows; of tables, what their first file states, or those of
            DataComp's metadata if `samples` is given.

    Raises:
        UserError: the input does not exist, or is tars and the configuration names no model.
    """
    from d2prune.knn.in_memory import wants_lists

    facts = facts or _assume_facts(config, listed=samples is None)
    if samples is None:
        facts = facts if facts.shards else _list_tars(config, facts)
        shards, samples = facts.shards, facts.samples
    else:
        shards = max(1, -(-samples // SHARD_SAMPLES))
    select, graph = config.select, config.graph
    names = [*config.embed.models]
    sides = len(graph.features.split("+"))
    if facts.tables:
        sides = min(sides, facts.n_sides)
    return Workload(
        samples=samples,
        sample_bytes=facts.sample_bytes,
        shards=shards,
        dimension=facts.dimensions[names.index(graph.model) if graph.model else 0],
        stored_values=(facts.n_sides if facts.tables else 2) * sum(facts.dimensions),
        sides=sides,
        n_neighbors=graph.n_neighbors,
        exact=not wants_lists(samples, graph.target_recall, graph.nprobe),
        nlist=graph.nlist,
        nprobe=graph.nprobe,
        fraction=select.fraction or min(1.0, (select.size or samples) / samples),
        samples_per_shard=config.write.samples_per_shard,
        compared=_count_compared(config, samples),
        deduplicates=config.dedup.applies,
        tables=facts.tables,
        copies=facts.copies,
        value_bytes=facts.value_bytes,
    )


def _assume_facts(config: RunConfig, listed: bool) -> PoolFacts:
    """What is known of a pool without a calibration; `listed`: read the first file of tables."""
    if config.embed.named_models:
        return PoolFacts(SAMPLE_BYTES, _read_dimensions(config))
    if listed:
        return _read_tables(config)
    n_sides = 2 - (config.columns.image_emb is None) - (config.columns.text_emb is None)
    if n_sides == 0:
        raise UserError("columns.image_emb: found null, and so is columns.text_emb; expected one of them")
    return PoolFacts(TABLE_ROW_BYTES, (TABLE_DIMENSION,), tables=True, n_sides=n_sides)


def _list_tars(config: RunConfig, facts: PoolFacts) -> PoolFacts:
    from d2prune.inputs.shards import expand_input

    listed = expand_input(config.input, config.written)
    samples = max(1, round(sum(shard.size for shard in listed) / facts.sample_bytes))
    return replace(facts, samples=samples, shards=len(listed))


def _read_tables(config: RunConfig) -> PoolFacts:
    """List tables and read the headers of the first that has rows; the others have as many rows per byte.

    Raises:
        UserError: the input is tars, or tables that a run would refuse by their first file.
    """
    from d2prune.inputs.pool import open_pool
    from d2prune.inputs.tables.column_names import WantedColumns, resolve_columns
    from d2prune.inputs.tables.schema_check import check_files, find_dimension
    from d2prune.inputs.tables.source import open_source

    pool = open_pool(config.input, config.written)
    if not pool.tables:
        first = store.redact(pool.shards[0].url)
        raise UserError(f"embed.model is missing: {first} is a tar, and its images need a model")
    columns = resolve_columns(pool.tables, WantedColumns(**config.columns.model_dump()))
    dimension = find_dimension(pool.tables, columns)
    for file in pool.tables:
        with open_source(file) as source:
            rows = source.table.rows
            value_bytes = sum(map(source.value_bytes, columns.embeddings)) / len(columns.embeddings)
        if rows:
            break
    copies = bool(check_files([file], columns, (), dimension))
    n_sides = len(columns.embeddings)
    total = sum(one.size for table in pool.tables for one in table.files)
    samples = max(1, round(total * rows / sum(one.size for one in file.files)))
    # Of a table whose embeddings are columns, the rest.
    row_bytes = file.table.size / rows - (0 if file.files[1:] else value_bytes * n_sides * dimension)
    sizes = max(row_bytes, 20.0), (dimension,), samples, len(pool.shards)
    return PoolFacts(*sizes, True, n_sides, copies, value_bytes)


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
        check_gamma("select.gamma_forward", select.gamma_forward, FORWARD_MULTIPLE),
        check_gamma("select.gamma_reverse", select.gamma_reverse, REVERSE_MULTIPLE),
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
    if not models:
        return Rates(0.0, source="docs/results.md")
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
    """Dimension of each model's embeddings; 512 for models that open_clip does not know."""
    from d2prune.embed.model.sources import import_open_clip

    known = [import_open_clip().get_model_config(model) or {} for _, model, _ in config.embed.named_models]
    return tuple(int(model.get("embed_dim", 512)) for model in known)
