"""What a run would find of an earlier one in its work_dir: the shards that are new, and the graph's route.

Lists the input and reads manifests and receipts; neither samples nor embeddings. Writes nothing. The
rules are those of the build (`graph/route.py`), with rows estimated where shards are not embedded yet.
"""

import math
from collections.abc import Mapping
from fractions import Fraction

from d2prune import store
from d2prune.config.model import RunConfig
from d2prune.embed.stage import list_unit_keys
from d2prune.errors import UserError
from d2prune.estimate.night import Night
from d2prune.graph import latest
from d2prune.graph.params import GraphParams, Layout
from d2prune.parts import files
from d2prune.runs.plan import RunPlan, plan_run
from d2prune.store import artifacts
from d2prune.store.artifacts import Manifest
from d2prune.store.completeness import find_complete_units


def forecast_night(config: RunConfig, samples: int) -> Night | str | None:
    """What the next run with a configuration continues.

    Args:
        config: the configuration.
        samples: in the pool, estimated; used where no shard of it was embedded.

    Returns:
        The forecast; in words why there is none; None if the work_dir holds no graph.
    """
    folder = store.join(config.work_dir, "graph")
    if not config.graph.n_neighbors or not store.list_files(folder, f"*/{artifacts.MANIFEST}"):
        return None
    try:
        plan = plan_run(config)
    except UserError as error:
        # A machine that plans need not have the model.
        return f"not known: {error}"
    if plan.find("graph") is not None:
        return "complete for this pool; it is not built again"
    before = latest.find_previous_graph(plan["graph"], plan["embed"])
    graph = None if before is None else artifacts.read_manifest(folder, before)
    if graph is None:
        return "built in full: no graph with these parameters is there to continue"
    embed = artifacts.read_manifest(store.join(config.work_dir, "embed"), graph.inputs["embed"])
    if embed is None:
        return f"built in full: the embeddings of the last graph, {before}, no longer exist"
    return _compare(config, plan, graph, embed, samples)


def _compare(config: RunConfig, plan: RunPlan, graph: Manifest, embed: Manifest, samples: int) -> Night:
    earlier = {unit.key: unit.rows(files.SAMPLES) for unit in embed.units}
    keys = list_unit_keys(plan.pool, plan["embed"].params)
    others = [key for key in keys if key not in earlier]
    known = earlier | {
        key: unit.rows(files.SAMPLES)
        for key, unit in find_complete_units(plan["embed"].folder, others).items()
    }
    rows = _estimate_rows(plan, keys, known, samples)
    gone = earlier.keys() - set(keys)
    unembedded = [key for key in keys if key not in known]
    new_rows, all_rows = sum(rows[key] for key in others), sum(rows.values())
    return Night(
        graph.fingerprint,
        rows=all_rows,
        new_shards=len(others),
        new_rows=new_rows,
        removed_shards=len(gone),
        removed_rows=sum(earlier[key] for key in gone),
        unembedded_shards=len(unembedded),
        unembedded_rows=sum(rows[key] for key in unembedded),
        why_full=_find_why_full(config, plan, graph, embed, all_rows, new_rows) or "",
        recall=graph.facts.get("recall"),
    )


def _estimate_rows(plan: RunPlan, keys: list[str], known: Mapping[str, int], samples: int) -> dict[str, int]:
    """Rows of each shard: those embedded, or as many per byte as the others have."""
    sizes = dict(zip(keys, (shard.size for shard in plan.pool.shards), strict=True))
    seen = sum(size for key, size in sizes.items() if key in known)
    per_byte = samples / max(sum(sizes.values()), 1)
    if seen:
        per_byte = sum(known[key] for key in keys if key in known) / seen
    return {key: known[key] if key in known else round(per_byte * size) for key, size in sizes.items()}


def _find_why_full(
    config: RunConfig, plan: RunPlan, graph: Manifest, embed: Manifest, all_rows: int, new_rows: int
) -> str | None:
    """Why the graph will be built in full; None if it will be an increment."""
    # These load numba.
    from d2prune.graph.previous import find_previous
    from d2prune.graph.route import find_why_full, find_why_too_many, find_why_unused
    from d2prune.graph.trained import read_facts

    planned = plan["graph"]
    params: GraphParams = planned.params
    given = planned.inputs.get(latest.QUANTISER)
    if given is None:
        if config.graph.quantiser == latest.NEW:
            return "graph.quantiser is new"
        return "less than half of the last run's shards are left, or its lists are lost"
    if not latest.has_trained(planned.folder, given):
        return f"the work_dir has no quantiser {given} yet"
    left = all_rows
    if params.drop_score is not None:
        left -= math.floor(all_rows * Fraction(repr(float(params.drop_fraction))))
    found = (
        find_why_unused(left, lambda: read_facts(planned.folder, given)["rows"], params)
        or find_why_full(left, Layout.whole_below, params)
        or find_why_too_many(new_rows, all_rows)
    )
    if found is None:
        previous = find_previous(config.work_dir, graph.fingerprint, given, embed.units, params.embeddings)
        found = previous if isinstance(previous, str) else None
    return found
