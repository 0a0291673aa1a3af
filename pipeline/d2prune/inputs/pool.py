"""The input of a run as a list of shards: tars, or tables that already hold embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass

from d2prune.inputs import shards as tars
from d2prune.inputs.find import SourceShard, find_input
from d2prune.inputs.overlap import Outside
from d2prune.inputs.shards import TarShard
from d2prune.inputs.tables import files as tables
from d2prune.inputs.tables.files import TableFile

TABLE_PART_BYTES = 128 << 20
"""Larger tables are split into parts of about this size: later stages hold one part in memory at a time."""


@dataclass(frozen=True)
class InputPool:
    """The pool of a run.

    Attributes:
        shards: in canonical order.
        identity: fingerprint of the shards: names, sizes, versions and order.
        tables: the table files; empty if the pool is tars.
    """

    shards: tuple[SourceShard, ...]
    identity: str
    tables: tuple[TableFile, ...] = ()

    @property
    def has_images(self) -> bool:
        """Whether the pool holds images, which need a model; tables hold embeddings."""
        return not self.tables


def open_pool(given: str | Sequence[str], outside: Outside | None = None) -> InputPool:
    """Find the input and list its shards; nothing is written.

    Args:
        given: see `find_input`.
        outside: folders that the input must not overlap; see `inputs.overlap`.

    Raises:
        UserError: see `find_input`.
        InfrastructureError: the storage cannot be reached.
    """
    found = find_input(given, outside)
    files = [file for file in found if isinstance(file, TableFile)]
    if files:
        parts = tables.split_tables(files, TABLE_PART_BYTES)
        return InputPool(tuple(parts), tables.pool_identity(parts), tuple(files))
    shards = [shard for shard in found if isinstance(shard, TarShard)]
    return InputPool(tuple(shards), tars.pool_identity(shards))
