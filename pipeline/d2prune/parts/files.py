"""File names of the tables in a part, and the stage that writes each.

A part is one input shard. The tables of one part have one row per embedded sample, in the same order
(`rejects.parquet` excepted), so row r of any of them is about the same sample.
"""

from d2prune.store import schemas

SAMPLES = "samples.parquet"
EMBEDDINGS = schemas.embeddings_file()
REJECTS = "rejects.parquet"
NEIGHBORS = "neighbors.parquet"
RANKS = "ranks.parquet"
SUPPRESSORS = "suppressors.parquet"
DECISIONS = "decisions.parquet"

_STAGES = {NEIGHBORS: "graph", RANKS: "rank", SUPPRESSORS: "rank", DECISIONS: "select"}


def stage_of(table: str) -> str:
    """The stage that writes a table; the embeddings of every model are the embed stage's."""
    return _STAGES.get(table, "embed")
