"""The graph stage: reads the embeddings of the whole pool, writes the undirected kNN graph.

What builds it is imported when it is called: it loads torch, which takes a second.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from d2prune.config.model import RunConfig
from d2prune.execution import Resources
from d2prune.graph.params import GraphParams, Layout
from d2prune.inputs.pool import InputPool
from d2prune.parts import map_file
from d2prune.stage.record import Built, Stage, StageRun
from d2prune.store import artifacts


def _params(config: RunConfig, pool: InputPool) -> GraphParams:
    return GraphParams(
        **config.graph.model_dump(exclude={"model"}),
        embeddings=config.embeddings_file,
        drop_score=config.select.drop_score,
        drop_fraction=config.select.drop_fraction,
    )


def _build(run: StageRun) -> Built:
    from d2prune.graph.build import build_graph, delete_intermediate_units, plan_job

    planned, embed = run.planned["graph"], run.manifests["embed"]
    layout = Layout(threads=int(run.executor.worker_cores(1)))
    pool = run.parts("embed", "rescore")
    job = plan_job(pool, embed.fingerprint, planned.folder, planned.params, layout)
    whole_machine, num_gpus = run.whole_machine(), run.config.ray.num_gpus
    if num_gpus:
        # The machine with the most cores need not be one with a GPU.
        cores = max(1.0, min(whole_machine.num_cpus, run.executor.cpus_per_gpu() * num_gpus))
        whole_machine = Resources(1, cores, num_gpus)
    one_core = Resources(run.one_core_each().workers, 1, num_gpus)
    job, receipts = build_graph(job, run.executor, whole_machine, one_core)
    return Built(receipts, job.facts, when_committed=lambda: delete_intermediate_units(job))


def _check(run: StageRun, built: Built) -> None:
    artifacts.balance(
        "graph", run.manifests["embed"].counters["embedded"], {"nodes": built.counters["nodes"]}
    )


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
)
