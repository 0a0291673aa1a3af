"""The parameters that decide the graph, and the layout of the work, which leaves no trace in it."""

from dataclasses import dataclass

from d2prune.knn.feature_kind import FeatureKind
from d2prune.store import schemas

# A unit of step `copies` sorts one bucket at 24 bytes a row: about 1 GB at this size.
_BUCKET_ROWS = 2**23
# Aim for partitions of 256 MiB, up to 64 of them: enough for a few dozen workers, and smaller ones
# would only copy more rows. Beyond 64, as few as keep each below 2 GiB of rows. A single machine needs no
# more than 4 for each core; up to 64 of them, they are of at most 1 GiB.
_SMALL_PARTITION, _MANY_PARTITIONS, _MEDIUM_PARTITION, _LARGE_PARTITION = 2**28, 64, 2**30, 2**31
_PER_CORE, _FEW_PARTITIONS = 4, 8


@dataclass(frozen=True)
class GraphParams:
    """Everything besides the embeddings that decides the graph.

    `config.GraphConfig` and `config.SelectConfig` document the fields. `embeddings` is the file of
    each embed part that distances are measured on. `lists_version` counts the changes of how lists are
    trained and found.
    """

    features: FeatureKind
    n_neighbors: int
    target_recall: float | None
    nlist: int | None
    nprobe: int | None
    seed: int
    drop_score: str | None
    drop_fraction: float
    embeddings: str = schemas.embeddings_file()
    lists_version: int = 3


@dataclass(frozen=True)
class Layout:
    """How the work is divided. It changes no byte of the graph and is part of no fingerprint.

    Attributes:
        whole_below: pools with fewer rows are built by one worker in memory, as are exact searches.
        partitions: of the lists; None chooses from the size of the pool in bytes.
        buckets: of the row hashes; None chooses from the number of rows.
        batch_rows: queries that a unit of the search holds in memory.
        visitors: rows that one unit of the search serves, approximately; a partition with more is
            searched by several units.
        in_transit: rows sent to partitions at a time, as a share of the pool; None: all.
        threads: of each worker.
        cores: of the machine that does all of the work; None: a cluster, which may grow.
    """

    whole_below: int = 100_000
    partitions: int | None = None
    buckets: int | None = None
    batch_rows: int = 65_536
    visitors: int = 2**22
    in_transit: float | None = 0.5
    threads: int = 1
    cores: int | None = None


def choose_buckets(n_rows: int) -> int:
    """Return the number of hash buckets for a pool of `n_rows` rows."""
    return max(1, -(-n_rows // _BUCKET_ROWS))


def choose_partitions(n_bytes: int, cores: int | None = None) -> int:
    """Return the number of partitions.

    Args:
        n_bytes: of all members.
        cores: as in `Layout`. A row visits fewer of few partitions, so fewer rows are sent.
    """
    small, medium, large = (
        -(-n_bytes // size) for size in (_SMALL_PARTITION, _MEDIUM_PARTITION, _LARGE_PARTITION)
    )
    most = _MANY_PARTITIONS
    if cores is not None:
        most = min(most, max(_FEW_PARTITIONS, _PER_CORE * cores, medium))
    return max(1, min(most, small), large)
