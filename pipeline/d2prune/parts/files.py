"""File names of the tables in a part, and the stage that writes each.

A part is one input shard. Its tables have one row per embedded sample, in the same order, so row r
of each of them describes the same sample. The exception is `rejects.parquet`.
"""

from collections.abc import Container

from d2prune.store import schemas

SAMPLES = "samples.parquet"
EMBEDDINGS = schemas.embeddings_file()
REJECTS = "rejects.parquet"
PAIR_SCORES = "pair_scores.parquet"
NEIGHBORS = "neighbors.parquet"
DUPLICATES = "duplicates.parquet"
RANKS = "ranks.parquet"
SUPPRESSORS = "suppressors.parquet"
DECISIONS = "decisions.parquet"

_STAGES = {
    PAIR_SCORES: "rescore",
    NEIGHBORS: "graph",
    DUPLICATES: "dedup",
    RANKS: "rank",
    SUPPRESSORS: "rank",
    DECISIONS: "select",
}


def stage_of(table: str, stages: Container[str] = ()) -> str:
    """The stage that writes a table. Embeddings of all models are written by the embed stage.

    Args:
        table: file name.
        stages: of the run. If it drops duplicates, the graph without them replaces the whole one.
    """
    if table == NEIGHBORS and "dedup" in stages:
        return "dedup"
    return _STAGES.get(table, "embed")
