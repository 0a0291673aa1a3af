"""The stages of a run, in order. The plan and the driver loop over this list."""

from d2prune.dedup.stage import STAGE as DEDUP
from d2prune.embed.stage import STAGE as EMBED
from d2prune.graph.stage import STAGE as GRAPH
from d2prune.rank.stage import STAGE as RANK
from d2prune.report.stage import STAGE as REPORT
from d2prune.rescore.stage import STAGE as RESCORE
from d2prune.select.stage import STAGE as SELECT
from d2prune.stage.record import Stage
from d2prune.write.stage import STAGE as WRITE

STAGES: tuple[Stage, ...] = (EMBED, RESCORE, GRAPH, DEDUP, RANK, SELECT, WRITE, REPORT)


def needs_budget(stop_after: str | None) -> bool:
    """Whether a run up to a stage selects samples, and so needs a budget."""
    before = STAGES[: STAGES.index(SELECT)]
    return stop_after not in [stage.name for stage in before]
