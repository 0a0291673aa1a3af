"""What a run will make, by name: every artifact's identity, before anything starts.

An artifact's fingerprint follows from its parameters and from those of the artifacts it is made from.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from pipeline import stages
from pipeline.config import RunConfig
from pipeline.inputs.find import SourceShard
from pipeline.source import Source, open_source
from pipeline.stages import Planned

Stage = Literal["embed", "graph", "rank", "select", "write", "report"]
STAGES: tuple[Stage, ...] = get_args(Stage)


@dataclass(frozen=True)
class RunPlan:
    """Every artifact of a run, planned."""

    source: Source
    embed: Planned
    graph: Planned
    rank: Planned
    select: Planned
    write: Planned

    @property
    def shards(self) -> tuple[SourceShard, ...]:
        """The input, in canonical order."""
        return self.source.shards

    def guarded(self, guard: Callable[[], None]) -> "RunPlan":
        """The same, with `guard` called before a manifest is written."""
        planned = {stage: dataclasses.replace(getattr(self, stage), guard=guard) for stage in STAGES[:-1]}
        return dataclasses.replace(self, **planned)


def plan_run(config: RunConfig) -> RunPlan:
    """Look at the input and name every artifact; nothing is written.

    Raises:
        UserError: the input or the model is missing.
    """
    from pipeline.graph.params import GraphParams
    from pipeline.output.stage import WriteParams
    from pipeline.selection.methods import Baseline
    from pipeline.selection.ranking import BaselineParams, RankParams
    from pipeline.selection.stage import SelectParams

    source = open_source(config)
    plan = partial(stages.plan, config.work_dir)
    embed = plan("embed", source.params, {"pool": source.identity})
    graph = plan(
        "graph",
        GraphParams(
            **config.graph.model_dump(exclude={"model"}),
            embeddings=config.embeddings_file,
            drop_score=config.select.drop_score,
            drop_fraction=config.select.drop_fraction,
        ),
        {"embed": embed.fingerprint},
    )
    rank_params = RankParams(
        difficulty=config.score.difficulty,
        offset=config.score.offset,
        gamma_forward=config.select.gamma_forward,
        gamma_reverse=config.select.gamma_reverse,
    )
    if config.select.method != "d2":
        baseline = Baseline(config.select.method, config.select.seed, config.graph.features, config.embeddings_file)
        rank_params = BaselineParams(**dataclasses.asdict(rank_params), baseline=baseline)
    rank = plan("rank", rank_params, {"graph": graph.fingerprint})
    budget = SelectParams(config.select.fraction, config.select.size, config.select.min_score, config.select.groups)
    select = plan("select", budget, {"rank": rank.fingerprint})
    write = plan("write", WriteParams(**config.write.model_dump()), {"select": select.fingerprint})
    return RunPlan(source, embed, graph, rank, select, write)
