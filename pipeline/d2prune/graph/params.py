"""What decides the graph, and what does not."""

from dataclasses import dataclass

from d2prune.knn.features import FeatureKind
from d2prune.store import schemas


@dataclass(frozen=True)
class GraphParams:
    """What decides the graph; see `config.GraphConfig` and `config.SelectConfig` for units and meaning.

    `embeddings` is the file of each embed part that distances are measured on.
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


@dataclass(frozen=True)
class Layout:
    """How the work is cut up. It leaves no trace in the graph and is part of no fingerprint.

    Attributes:
        whole_below: pools with fewer rows are one unit, in memory; so are those searched exactly.
        partitions: of the lists; None chooses from the bytes of the pool.
        buckets: of the rows' hashes; None chooses from the number of rows.
        batch_rows: queries that a search holds at a time.
        visitors: rows that one unit of the search serves, about; more come in several units of the
            same partition.
        threads: of a worker that searches.
    """

    whole_below: int = 100_000
    partitions: int | None = None
    buckets: int | None = None
    batch_rows: int = 65_536
    visitors: int = 2**22
    threads: int = 1
