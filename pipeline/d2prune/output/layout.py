"""File names in an output folder, and what `verify` checks of each; no other module spells them out.

An output folder has no subfolders. DataComp's train.py walks into every folder below `--data_dir`,
and a folder without tars adds an empty URL to its list of shards.

With `write.stable`, tars are named by what they hold and are stored beside the output folders of all runs,
in `<output root>/shards`; `locate` finds them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from d2prune import store
from d2prune.store import schemas

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

STABLE_OPTION = "stable"
"""Name of the option that shares tars, in the configuration and in the output manifest."""

_STABLE = r"shard-[0-9a-f]{16}"


@dataclass(frozen=True)
class ShardFiles:
    """Names of the files of an output tar; `stats` is None where the outputs share the tar."""

    tar: str
    table: str
    stats: str | None

    @classmethod
    def numbered(cls, index: int) -> "ShardFiles":
        """Names of tar number `index` of an output folder."""
        return cls(SHARD_FORMAT.format(index), TABLE_FORMAT.format(index), STATS_FORMAT.format(index))

    @classmethod
    def stable(cls, digest: str) -> "ShardFiles":
        """Names of a shared tar; `digest` is 16 hex digits, a hash of what it holds."""
        return cls(f"shard-{digest}.tar", f"shard-{digest}.parquet", None)


def table_of(tar: str) -> str:
    """Name of the table of an output tar."""
    return tar.removesuffix(".tar") + ".parquet"


def is_shared(name: str) -> bool:
    """Whether outputs share the file: a tar of `write.stable`, or its table."""
    return re.fullmatch(rf"{_STABLE}\.(tar|parquet)", name) is not None


def shared_folder(output: str) -> str:
    """URL of the folder of shared tars of an output folder."""
    return store.join(output.rstrip("/").rpartition("/")[0], schemas.SHARED_FOLDER)


def locate(output: str, name: str) -> str:
    """URL of a file of an output folder."""
    return store.join(shared_folder(output) if is_shared(name) else output, name)


@dataclass(frozen=True)
class FileKind:
    """Files of an output folder that `verify` checks in one way.

    `verify` compares the size of every listed file with the manifest, and its checksum.

    Attributes:
        pattern: regular expression of the whole name.
        listed: whether the manifest lists it. The manifest holds its own checksum, and the claim
            holds the identity that the manifest records.
        sampled: whether only `verify --full` compares the checksum of every such file.
    """

    pattern: str
    listed: bool = True
    sampled: bool = False


_NUMBER = r"\d{8,}"
KINDS = (
    FileKind(rf"{_NUMBER}\.tar", sampled=True),
    FileKind(rf"{_NUMBER}_stats\.json"),
    FileKind(rf"{_NUMBER}\.parquet"),
    FileKind(rf"{DECISIONS_PREFIX}{_NUMBER}\.parquet"),
    FileKind(rf"{KEPT_PREFIX}{_NUMBER}\.parquet"),
    FileKind(rf"{_STABLE}\.tar", sampled=True),
    FileKind(rf"{_STABLE}\.parquet"),
    *(FileKind(re.escape(name)) for name in (SUBSET, SAMPLE_IDS, META, SIZES, TRAIN)),
    *(FileKind(re.escape(name), listed=False) for name in (MANIFEST, CLAIM)),
)
"""Every file that an output folder may hold."""


def kind_of(name: str) -> FileKind | None:
    """The kind of a file, None for files that d2prune does not write."""
    return next((kind for kind in KINDS if re.fullmatch(kind.pattern, name)), None)


def is_read_by_trainers(name: str) -> bool:
    """Return whether a trainer would read a file of this name, although d2prune did not write it.

    DataComp's train.py takes every name that ends in `.tar` for a shard (`._00000000.tar`, too, which
    macOS leaves on some file systems), and walks into folders. Other names of d2prune's own files
    would be taken for those of the run.
    """
    return name.endswith((".tar", "_stats.json")) or "/" in name or kind_of(name) is not None


def brace_range(shards: int) -> str:
    """All output tars in brace notation, `{00000000..00000123}.tar`, which webdataset and open_clip expand.

    Args:
        shards: number of tars, at least 1.
    """
    return f"{{{0:08d}..{shards - 1:08d}}}.tar"


def brace_list(tars: Sequence[str]) -> str:
    """Shared tars in brace notation, `shard-{1f0a...,20c7...}.tar`.

    Args:
        tars: their names, at least one.
    """
    digests = [name.removeprefix("shard-").removesuffix(".tar") for name in tars]
    return f"shard-{{{','.join(digests)}}}.tar" if len(digests) > 1 else tars[0]
