"""File names of the tables in a part, and the stage that writes each.

A part is one input shard. Its tables have one row per embedded sample, in the same order, so row r
of each of them describes the same sample. The exception is `rejects.parquet`.
"""

from d2prune.store import schemas

SAMPLES = "samples.parquet"
EMBEDDINGS = schemas.embeddings_file()
REJECTS = "rejects.parquet"
PAIR_SCORES = "pair_scores.parquet"
NEIGHBORS = "neighbors.parquet"
RANKS = "ranks.parquet"
SUPPRESSORS = "suppressors.parquet"
DECISIONS = "decisions.parquet"

_STAGES = {
    PAIR_SCORES: "rescore",
    NEIGHBORS: "graph",
    RANKS: "rank",
    SUPPRESSORS: "rank",
    DECISIONS: "select",
}


def stage_of(table: str) -> str:
    """The stage that writes a table. Embeddings of all models are written by the embed stage."""
    return _STAGES.get(table, "embed")
