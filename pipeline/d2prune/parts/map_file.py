"""The layout of a map, stored beside the graph artifact it belongs to: `graph/<fingerprint>/map.parquet`.

A cache: who misses it computes it again, so a missing, damaged or older file reads as None. S points.
"""

import logging
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import D2PruneError
from d2prune.store import artifacts

log = logging.getLogger(__name__)

FILE = "map.parquet"
# Of the file and of how the layout is computed; another number makes it new.
_VERSION = b"2"
_SCHEMA = pa.schema(
    [
        pa.field("position", pa.int64(), nullable=False),
        pa.field("x", pa.uint16(), nullable=False),
        pa.field("y", pa.uint16(), nullable=False),
    ],
    metadata={b"layout": _VERSION},
)


@dataclass(frozen=True)
class MapLayout:
    """Where samples are on the map.

    Attributes:
        positions_S: int64, canonical positions, ascending.
        xy_S2: uint16 [S, 2].
    """

    positions_S: NDArray[np.int64]
    xy_S2: NDArray[np.uint16]


def write_layout(work_dir: str, graph: str, found: MapLayout) -> bool:
    """Store a layout; False, and one line in the log, if the work_dir takes no files.

    Args:
        work_dir: URL.
        graph: fingerprint of the graph artifact.
        found: the layout.
    """
    columns = [found.positions_S, found.xy_S2[:, 0], found.xy_S2[:, 1]]
    table = pa.table([pa.array(column) for column in columns], schema=_SCHEMA)
    try:
        store.write_bytes(_locate(work_dir, graph), artifacts.table_bytes(table))
    except (D2PruneError, OSError) as error:
        log.info("map: the layout is kept in memory only: %s", error)
        return False
    return True


def read_layout(work_dir: str, graph: str, samples: int) -> MapLayout | None:
    """Read a layout.

    Args:
        work_dir: URL.
        graph: fingerprint of the graph artifact.
        samples: of the pool.

    Returns:
        None if there is none that can be used.
    """
    try:
        data = store.read_bytes(_locate(work_dir, graph))
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            table = file.read()
    except (D2PruneError, OSError, pa.ArrowException):
        return None
    if not table.schema.equals(_SCHEMA) or (table.schema.metadata or {}).get(b"layout") != _VERSION:
        return None
    positions_S = table["position"].to_numpy()
    # A damaged footer can name pages in any order.
    if len(positions_S) and (positions_S[0] < 0 or positions_S[-1] >= samples):
        return None
    if (np.diff(positions_S) <= 0).any():
        return None
    return MapLayout(positions_S, np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1))


def _locate(work_dir: str, graph: str) -> str:
    return store.join(work_dir, "graph", graph, FILE)
