"""The pool and the settings that decide how much work a run is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """The pool and the settings that decide how much work a run is.

    Attributes:
        samples: number of samples in the pool.
        sample_bytes: mean bytes of a sample in its tar.
        shards: number of input tars.
        dimension: dimension of the embeddings that the graph uses.
        stored_values: embedding values stored per sample, image and text, over all models; None:
            those of one model.
        sides: embeddings per sample that distances use: 2 for image+text, otherwise 1.
        n_neighbors: k.
        exact: whether every row is compared with every other.
        nlist: number of lists; None: chosen from the number of samples.
        nprobe: lists searched per row; None: estimated from the number of samples.
        fraction: fraction of the samples that is kept.
        samples_per_shard: samples in each output tar.
        compared: rows that the rescore stage multiplies each sample with; 0: the run has no such stage.
        deduplicates: whether the run has the dedup stage.
        tables: whether the pool is tables of embeddings. `sample_bytes` is then that of a row without
            them, and `stored_values` counts those that the run reads.
        copies: whether embeddings of tables are copied, because they cannot be read in place.
        value_bytes: bytes of an embedding value in tables; copies have 2.
    """

    samples: int
    sample_bytes: float
    shards: int
    dimension: int
    stored_values: int | None = None
    sides: int = 2
    n_neighbors: int = 5
    exact: bool = False
    nlist: int | None = None
    nprobe: int | None = None
    fraction: float = 0.3
    samples_per_shard: int = 10_000
    compared: int = 0
    deduplicates: bool = False
    tables: bool = False
    copies: bool = False
    value_bytes: float = 2.0

    @property
    def row_bytes(self) -> float:
        """Bytes of the embeddings of a sample that distances use, as the graph reads them."""
        in_place = self.tables and not self.copies
        return self.dimension * self.sides * (self.value_bytes if in_place else 2.0)
