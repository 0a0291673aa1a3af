"""Schemas of all tables that this project writes. See docs/artifacts.md.

The rows of a part are in canonical order, and parts are in the order of the input shards. A
sample's canonical position is (rows of all earlier parts) + (its row). It breaks every tie and does
not depend on the number of workers.
"""

from collections.abc import Sequence

import pyarrow as pa

SCHEMA_VERSION = 6
"""Incremented when a stored table or manifest changes meaning; part of every fingerprint."""

REJECTS = pa.schema(
    [
        ("shard", pa.string()),
        ("key", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
"""Samples read but not embedded, one row each; `reason` is from `d2prune.inputs.rejects`."""


def embeddings_file(model: str | None = None) -> str:
    """File name of a part's embeddings; `model` names one of several models, None is the first."""
    return "embeddings.parquet" if model is None else f"embeddings-{model}.parquet"


def score_column(model: str) -> str:
    """Name of the column with the clip_score of one of several models."""
    return f"clip_{model}"


def embeddings(dimension: int) -> pa.Schema:
    """Embeddings of one model: one row per embedded sample, row-aligned with `samples`.

    They are a separate file because they are nearly all of the bytes and only the graph stage reads
    them all. A vector is one value of fixed size and not a list: parquet stores lists value by
    value, which takes five times as long to read (docs/results/explorer.md).

    Args:
        dimension: width D of the model's joint embedding.

    Returns:
        image_emb and text_emb, each 2 D bytes: D little-endian float16, unit norm.
        `columns.vectors` reads them.
    """
    embedding = pa.binary(2 * dimension)
    return pa.schema([("image_emb", embedding), ("text_emb", embedding)])


def samples(fields: Sequence[tuple[str, str]] = (), models: Sequence[str] = ()) -> pa.Schema:
    """Part of the embed stage: one row per embedded sample, in tar order.

    Args:
        fields: columns copied from the json, (name, `number` or `text`).
        models: names of the models if there are several. Each has its score in the column
            `score_column(name)`, and clip_score is that of the first.

    Returns:
        uid is 32 lower-case hex digits, clip_score the float32 cosine of the unrounded embeddings,
        offset and size the byte range of the sample in its tar, headers and padding included, checksum
        that of its members (see `inputs.tar.checksum`), and image_sha256 that of the stored image. For
        a sample imported from a table, clip_score is the stored one or null, offset the row in that
        table, size 0, and the last two are null.
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
            ("checksum", pa.binary(16)),
            ("image_sha256", pa.binary(32)),
            *((name, pa.float64() if kind == "number" else pa.string()) for name, kind in fields),
            *((score_column(name), pa.float32()) for name in models),
        ]
    )


S_CLIP_LOSS, NORM_SIM_2, NORM_SIM_INF = "s_clip_loss", "norm_sim_2", "norm_sim_inf"
NEAR_TARGET = "near_target"
PAIR_SCORES = (S_CLIP_LOSS, NORM_SIM_2, NORM_SIM_INF, NEAR_TARGET)
"""Scores that compare a pair with the rest of the pool or with a target; computed if a run uses them."""


def pair_scores(names: Sequence[str]) -> pa.Schema:
    """Part of the rescore stage: some of PAIR_SCORES, row-aligned with `samples`."""
    return pa.schema([(name, pa.float32()) for name in names])


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
"""Part of the rank stage: one row per embedded sample.

Scores are fixed point, scale 2^40. `ranked` is false for samples that the cut-off removed or that
were dropped as duplicates.
"""

SUPPRESSORS = pa.schema([("suppressed_by", pa.string())])
"""Row-aligned with RANKS: the uid of the `suppressor`, null if there is none."""

NEIGHBORS = pa.schema(
    [
        ("cut_off", pa.bool_()),
        ("indices", pa.list_(pa.int64())),
        ("sq_distances", pa.list_(pa.float32())),
    ]
)
"""Part of the graph stage: one row per embedded sample.

`indices` are canonical positions, ascending. `cut_off` marks samples that the cut-off removed
before the graph was built. They have no edges and are not ranked. The dedup stage writes the same
table without the samples that it drops, and marks those too.
"""

DUPLICATE, NEAR_DUPLICATE = "duplicate", "near-duplicate"

DUPLICATES = pa.schema(
    [
        ("dropped", pa.bool_()),
        ("reason", pa.string()),
        ("keeper", pa.int64()),
        ("keeper_uid", pa.string()),
        ("group", pa.int64()),
        ("sq_distance", pa.float32()),
    ]
)
"""Part of the dedup stage: one row per embedded sample.

`reason` is `duplicate` or `near-duplicate`, null for samples that are not dropped. `keeper` is the
canonical position of the sample that stays in place of a dropped one, -1 if there is none; `group` is
the keeper's position, or the sample's own. `sq_distance` is that between a near-duplicate and its
keeper, otherwise null.
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
"""Part of the select stage: one row per embedded sample.

`selection_fixed` is the exact score in fixed point, scale 2^40; the floats are for display.
`suppressed_by` is the uid, and `suppressor` the canonical position, of the neighbour that sent the
strongest message; null and -1 if none did. For a duplicate they name the sample kept in its place.
`reason` is `kept`, `below-budget`, `cut-off`, `duplicate` or `near-duplicate`.
"""

WRITTEN = pa.schema(
    [
        ("uid", pa.string()),
        ("key", pa.string()),
        ("shard", pa.string()),
        ("source_key", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("checksum", pa.binary(16)),
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
"""Table beside each output tar: one row per sample, in tar order.

`key` is the sample's name in the output tar. `shard`, `source_key`, `offset` and `size` are its
location in the input, and `checksum` is that of the bytes that were embedded; a reshard, which embeds
nothing, has none.
"""

SHARED_FOLDER = "shards"
"""Folder beside the outputs of a schedule, with the tars that they share (`write.stable`)."""

SHARED = pa.schema([("uid", pa.string()), ("key", pa.string()), ("checksum", pa.binary(16))])
"""Table of a tar that the outputs of several runs share (`write.stable`): the columns of WRITTEN that
depend on the samples alone."""

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
"""Table of the kept samples of a pool of tables, in table order; other columns of its table follow.

`row` is the sample's row in the table `shard`.
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
"""Decisions in the output folder, on kept and dropped samples: one file per input shard."""
