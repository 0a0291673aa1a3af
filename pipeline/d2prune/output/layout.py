"""Names in an output folder, the one place that knows them.

The folder is flat but for nothing: DataComp's train.py walks into every folder below `--data_dir`,
and one without tars adds an empty URL to its list of shards.
"""

SHARD_FORMAT = "{:08d}.tar"
STATS_FORMAT = "{:08d}_stats.json"
TABLE_FORMAT = "{:08d}.parquet"
DECISIONS_FORMAT = "decisions-{:08d}.parquet"
KEPT_PREFIX = "kept-"
KEPT_FORMAT = KEPT_PREFIX + "{:08d}.parquet"

SUBSET = "subset.npy"
SAMPLE_IDS = "sample_ids.npy"
META = "meta.json"
SIZES = "sizes.json"
TRAIN = "train.sh"
MANIFEST = "manifest.json"
CLAIM = ".d2prune-run.json"


def brace_range(shards: int) -> str:
    """`{00000000..00000123}.tar`: all output tars as open_clip and webdataset expand them; `shards` >= 1."""
    return f"{{{0:08d}..{shards - 1:08d}}}.tar"
