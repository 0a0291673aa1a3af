"""File names in an output folder; no other module spells them out.

An output folder has no subfolders. DataComp's train.py walks into every folder below `--data_dir`,
and a folder without tars adds an empty URL to its list of shards.
"""

SHARD_FORMAT = "{:08d}.tar"
STATS_FORMAT = "{:08d}_stats.json"
TABLE_FORMAT = "{:08d}.parquet"
DECISIONS_PREFIX = "decisions-"
DECISIONS_FORMAT = DECISIONS_PREFIX + "{:08d}.parquet"
KEPT_PREFIX = "kept-"
KEPT_FORMAT = KEPT_PREFIX + "{:08d}.parquet"

SUBSET = "subset.npy"
SAMPLE_IDS = "sample_ids.npy"
META = "meta.json"
SIZES = "sizes.json"
TRAIN = "train.sh"
MANIFEST = "manifest.json"
CLAIM = ".d2prune-run.json"
PRUNED = "pruned.json"
"""Name of the manifest while `d2prune runs --prune` deletes the folder."""


def brace_range(shards: int) -> str:
    """All output tars in brace notation, `{00000000..00000123}.tar`, which webdataset and open_clip expand.

    Args:
        shards: number of tars, at least 1.
    """
    return f"{{{0:08d}..{shards - 1:08d}}}.tar"
