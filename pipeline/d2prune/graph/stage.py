"""The graph stage: reads the embeddings of the whole pool, writes the undirected kNN graph.

What builds it is imported when it is called: it loads torch, which takes a second.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from d2prune import store
from d2prune.config.model import RunConfig
from d2prune.execution import Resources, is_own_machine
from d2prune.graph import latest
from d2prune.graph.params import GraphParams, Layout
from d2prune.inputs.pool import InputPool
from d2prune.parts import map_file
from d2prune.stage.planned import Planned
from d2prune.stage.record import Built, Stage, StageRun
from d2prune.store import artifacts


def _params(config: RunConfig, pool: InputPool) -> GraphParams:
    return GraphParams(
        **config.graph.model_dump(exclude={"model", "quantiser"}),
        embeddings=config.embeddings_file,
        drop_score=config.select.drop_score,
        drop_fraction=config.select.drop_fraction,
    )


def _build(run: StageRun) -> Built:
    from d2prune.graph.build import build_graph, delete_intermediate_units, plan_job

    planned = run.planned["graph"]
    own_cores = run.executor.cpus() if is_own_machine(run.config.ray.address) else None
    layout = Layout(threads=int(run.executor.worker_cores(1)), cores=own_cores)
    if not store.is_local(planned.folder):
        # A bucket has room for all rows in transit, and waves would leave a large cluster idle.
        layout = replace(layout, in_transit=None)
    pool = run.parts("embed", "rescore")
    job = plan_job(pool, planned.inputs, planned.folder, planned.params, layout)
    previous = _find_previous(run, planned)
    whole_machine, num_gpus = run.whole_machine(), run.config.ray.num_gpus
    if num_gpus:
        # The machine with the most cores need not be one with a GPU.
        cores = max(1.0, min(whole_machine.num_cpus, run.executor.cpus_per_gpu() * num_gpus))
        whole_machine = Resources(1, cores, num_gpus)
    one_core = Resources(run.one_core_each().workers, 1, num_gpus)
    job, receipts = build_graph(job, run.executor, whole_machine, one_core, previous)
    if job.given is None and job.trained is not None and run.config.graph.quantiser == latest.AUTO:
        latest.log_fresh_start(planned, run.planned["embed"])
    return Built(receipts, job.facts, when_committed=lambda: delete_intermediate_units(job))


def _find_previous(run: StageRun, planned: Planned) -> str | None:
    """Find the graph to start from, and take over a quantiser of another work_dir."""
    given = planned.inputs.get(latest.QUANTISER)
    if given is None:
        return None
    if not latest.has_trained(planned.folder, given):
        from d2prune.graph.trained import copy_trained

        source = latest.find_source(run.config)
        if source is not None:
            copy_trained(source, planned.folder, given)
    return latest.find_previous_graph(planned, run.planned["embed"])


def _check(run: StageRun, built: Built) -> None:
    artifacts.balance(
        "graph", run.manifests["embed"].counters["embedded"], {"nodes": built.counters["nodes"]}
    )


def _add_quantiser(
    config: RunConfig, pool: InputPool, planned: Planned, earlier: Mapping[str, Planned]
) -> Planned:
    return latest.add_quantiser(config, pool, planned, earlier["embed"])


def _record_latest(run: StageRun) -> None:
    latest.record_latest(run.pool, run.planned["graph"], run.planned["embed"], run.manifests["graph"].facts)


def _shared_unit_keys(manifest: Mapping[str, Any]) -> Iterable[str]:
    trained = manifest["facts"].get(latest.QUANTISER)
    return [] if trained is None else [latest.trained_key(trained)]


def _other_unit_keys(manifest: Mapping[str, Any]) -> Iterable[str]:
    from d2prune.graph.build import other_unit_keys

    return other_unit_keys(manifest)


STAGE = Stage(
    name="graph",
    inputs=("embed",),
    more_inputs=lambda config: ("rescore",) if config.find_pair_scores(config.select.drop_score) else (),
    params=_params,
    build=_build,
    check=_check,
    other_files=(map_file.FILE,),
    other_unit_keys=_other_unit_keys,
    shared_unit_keys=_shared_unit_keys,
    add_inputs=_add_quantiser,
    when_complete=_record_latest,
)
