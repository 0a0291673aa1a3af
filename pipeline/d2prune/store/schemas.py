"""Every table this project writes, as explicit pyarrow schemas. See docs/artifacts.md.

Rows of one part are in canonical order; parts are in the order of the input shards. A sample's
canonical position is (rows of all earlier parts) + (its row): it breaks every tie and never changes
with the number of workers.
"""

from collections.abc import Sequence

import pyarrow as pa

SCHEMA_VERSION = 3
"""Raised whenever a stored table or manifest changes meaning; part of every fingerprint."""

REJECTS = pa.schema(
    [
        ("shard", pa.string()),
        ("key", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
"""Samples that were read but not embedded: one row each, `reason` from `d2prune.inputs.rejects`."""


def embeddings_file(model: str | None = None) -> str:
    """The file with the vectors of a part; `model`: the name of one of several, but not of the first."""
    return "embeddings.parquet" if model is None else f"embeddings-{model}.parquet"


def score_column(model: str) -> str:
    """The column that holds the clip_score of one of several models."""
    return f"clip_{model}"


def embeddings(dimension: int) -> pa.Schema:
    """The vectors of the embed stage's part by one model, row-aligned with its samples.

    They lie in a file of their own because they are nearly all of the bytes and only the graph
    reads them all. A vector is one value of fixed size, not a list: parquet stores a list value by
    value, which takes fifteen times as long.

    Args:
        dimension: width D of the model's joint embedding.

    Returns:
        image_emb and text_emb (2 D bytes: D little-endian float16, unit norm); `columns.vectors` reads them.
    """
    embedding = pa.binary(2 * dimension)
    return pa.schema([("image_emb", embedding), ("text_emb", embedding)])


def samples(fields: Sequence[tuple[str, str]] = (), models: Sequence[str] = ()) -> pa.Schema:
    """The embed stage's part: one row per embedded sample, in tar order.

    Args:
        fields: columns carried along from the json, (name, `number` or `text`).
        models: names of the models where there are several; each has its score in `score_column` of
            its name, and clip_score is that of the first.

    Returns:
        uid (32 lower-case hex digits), clip_score (float32 cosine of the unrounded embeddings),
        offset and size (bytes of the whole sample in its tar, headers and padding included). Of a
        sample imported from a table: clip_score as stored there (null where there is none), offset
        its row in that table, size 0.
    """
    return pa.schema(
        [
            ("shard", pa.string()),
            ("key", pa.string()),
            ("uid", pa.string()),
            ("clip_score", pa.float32()),
            ("caption", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("offset", pa.int64()),
            ("size", pa.int64()),
            *((name, pa.float64() if kind == "number" else pa.string()) for name, kind in fields),
            *((score_column(name), pa.float32()) for name in models),
        ]
    )


RANKS = pa.schema(
    [
        ("difficulty", pa.float32()),
        ("ranked", pa.bool_()),
        ("forward_score", pa.int64()),
        ("selection_score", pa.int64()),
        ("suppressor", pa.int64()),
        ("suppression", pa.int64()),
    ]
)
"""The rank stage's part: one row per embedded sample, scores in fixed point 2^40; `ranked` is false for the cut-off."""

SUPPRESSORS = pa.schema([("suppressed_by", pa.string())])
"""Beside RANKS, row-aligned: the uid of the `suppressor`, null where there is none."""

NEIGHBORS = pa.schema(
    [
        ("cut_off", pa.bool_()),
        ("indices", pa.list_(pa.int64())),
        ("sq_distances", pa.list_(pa.float32())),
    ]
)
"""The graph stage's part: one row per sample; `indices` are canonical positions, ascending.

`cut_off` marks the samples that the cut-off removed before the graph was built; they have no edges
and are not ranked.
"""

DECISIONS = pa.schema(
    [
        ("uid", pa.string()),
        ("shard", pa.string()),
        ("key", pa.string()),
        ("difficulty", pa.float32()),
        ("forward_score", pa.float64()),
        ("selection_score", pa.float64()),
        ("selection_fixed", pa.int64()),
        ("kept", pa.bool_()),
        ("reason", pa.string()),
        ("suppressed_by", pa.string()),
        ("suppressor", pa.int64()),
        ("suppression", pa.float64()),
    ]
)
"""The select stage's part: one row per embedded sample, row-aligned with the embed stage's part.

`selection_fixed` is the exact score (fixed point 2^40); the floats are for people. `suppressed_by`
is the uid, and `suppressor` the canonical position, of the neighbour that sent the strongest
message (null and -1 where none did). `reason` is `kept`, `below-budget` or `cut-off`.
"""

WRITTEN = pa.schema(
    [
        ("uid", pa.string()),
        ("key", pa.string()),
        ("shard", pa.string()),
        ("source_key", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("caption", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("clip_score", pa.float32()),
        ("difficulty", pa.float32()),
        ("forward_score", pa.float64()),
        ("selection_score", pa.float64()),
        ("kept", pa.bool_()),
        ("suppressed_by", pa.string()),
    ]
)
"""The table beside each output tar: one row per sample, in tar order.

`key` is the sample's name in the output tar; `shard`, `source_key`, `offset` and `size` say where
it came from.
"""

KEPT = pa.schema(
    [
        ("uid", pa.string()),
        ("shard", pa.string()),
        ("key", pa.string()),
        ("row", pa.int64()),
        ("clip_score", pa.float32()),
        ("difficulty", pa.float32()),
        ("forward_score", pa.float64()),
        ("selection_score", pa.float64()),
        ("kept", pa.bool_()),
        ("suppressed_by", pa.string()),
    ]
)
"""What the output of a pool of tables tells of each kept sample, in table order; the other columns of its table follow.

`row` is the sample's number in the table `shard`.
"""

POOL_DECISIONS = pa.schema(
    [
        ("uid", pa.string()),
        ("shard", pa.string()),
        ("key", pa.string()),
        ("clip_score", pa.float32()),
        ("difficulty", pa.float32()),
        ("forward_score", pa.float64()),
        ("selection_score", pa.float64()),
        ("kept", pa.bool_()),
        ("reason", pa.string()),
        ("suppressed_by", pa.string()),
        ("suppression", pa.float64()),
    ]
)
"""What the output tells of the whole pool, kept and dropped: one file per input shard, one row per embedded sample."""
