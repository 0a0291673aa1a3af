"""Plan the output tars of a reshard: which rows go to which tar."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from d2prune.inputs.shards import TarShard
from d2prune.store import artifacts


@dataclass(frozen=True)
class ReshardParams:
    """What decides the output besides the subset file and the pool.

    Attributes:
        samples_per_shard: samples in each output tar but the last.
        shuffle: seed that assigns samples to output tars at random; within a tar they stay in
            canonical order, because trainers shuffle within tars. None keeps canonical order
            throughout.
    """

    samples_per_shard: int = 10_000
    shuffle: int | None = None


@dataclass(frozen=True)
class ReshardUnit:
    """One output tar.

    Attributes:
        key: name of its receipt.
        index: its number.
        rows: rows to write (see `matching.select_rows`), in canonical order. One table for all
            input tars: slices of it would each be pickled with the whole table.
        urls: number of an input tar -> its URL, for the tars the rows come from.
    """

    key: str
    index: int
    rows: pa.Table
    urls: Mapping[int, str]

    def pieces(self) -> Iterator[tuple[str, pa.Table]]:
        """Yield the URL of each input tar and the rows to copy from it."""
        parts = self.rows["part"].to_numpy()
        bounds = [0, *(np.flatnonzero(np.diff(parts)) + 1).tolist(), len(parts)]
        for low, high in itertools.pairwise(bounds):
            yield self.urls[int(parts[low])], self.rows.slice(low, high - low)


def plan(
    rows: pa.Table, shards: Sequence[TarShard], params: ReshardParams, identity: str
) -> list[ReshardUnit]:
    """Assign the rows to output tars.

    Args:
        rows: from `matching.select_rows`.
        shards: the input tars.
        params: see `ReshardParams`.
        identity: fingerprint of the whole output; together with a tar's number it identifies the
            tar.
    """
    count, size = rows.num_rows, params.samples_per_shard
    order = np.arange(count)
    if params.shuffle is not None:
        order = np.random.default_rng(params.shuffle).permutation(count)
    units = []
    for index, start in enumerate(range(0, count, size)):
        chosen = rows.take(np.sort(order[start : start + size])).combine_chunks()
        urls = {part: shards[part].url for part in chosen["part"].unique().to_pylist()}
        key = artifacts.unit_key(f"{index:08d}", "reshard", identity)
        units.append(ReshardUnit(key, index, chosen, urls))
    return units
