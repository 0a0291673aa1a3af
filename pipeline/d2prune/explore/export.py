"""Lists of samples as files to download: parquet, or the uids as a subset file.

Rows are in canonical order, and read part by part, so memory does not grow with the list.
"""

import io
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from d2prune.explore.texts import Texts
from d2prune.output import subset
from d2prune.parts.files import DECISIONS, SAMPLES
from d2prune.runs.finished import FinishedRun
from d2prune.store import schemas

# Of the samples: the rest of what is shown of one. The others are in the decisions, or are checksums.
_SAMPLE_COLUMNS = ("caption", "clip_score", "width", "height", "offset", "size")


def subset_file(texts: Texts, positions: NDArray[np.int64]) -> bytes:
    """The uids of samples as a subset file, see `output.subset`: 16 bytes a sample."""
    parts = [subset.encode(uids.to_pylist()) for uids in texts.uids_at(np.sort(positions))]
    return subset.to_bytes(np.concatenate([np.zeros(0, subset.DTYPE), *parts]))


def sample_tables(
    run: FinishedRun, positions: NDArray[np.int64], similarities: NDArray[np.float32] | None = None
) -> Iterator[pa.Table]:
    """Decisions, captions and fields of samples, one table for each part.

    Args:
        run: the run.
        positions: canonical [M].
        similarities: of a search by meaning [M], for a column of this name; None: no such column.
    """
    columns = [*_SAMPLE_COLUMNS, *run.fields]
    order_M = np.argsort(positions)
    for part, index_M, row_M in run.parts.spans.by_part(positions[order_M]):
        table = run.parts.peek(part, DECISIONS, schemas.DECISIONS.names).take(row_M)
        samples = run.parts.peek(part, SAMPLES, columns).take(row_M)
        for name in samples.column_names:
            if name not in table.column_names:
                table = table.append_column(name, samples[name])
        if similarities is not None:
            table = table.append_column("query_similarity", pa.array(similarities[order_M[index_M]]))
        yield table


def to_parquet(tables: Iterable[pa.Table], empty: pa.Schema) -> Iterator[bytes]:
    """A parquet file in pieces.

    Args:
        tables: of one schema.
        empty: the schema if there are no tables.
    """
    sink = _Sink()
    writer: pq.ParquetWriter | None = None
    try:
        for table in tables:
            writer = writer or pq.ParquetWriter(sink, table.schema, compression="zstd")
            writer.write_table(table)
            yield sink.take()
        writer = writer or pq.ParquetWriter(sink, empty, compression="zstd")
    finally:
        if writer is not None:
            writer.close()
    yield sink.take()


class _Sink(io.RawIOBase):
    """A stream whose bytes are taken out as they are written; pyarrow asks for its position."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._pieces.append(bytes(data))
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position

    def take(self) -> bytes:
        data, self._pieces = b"".join(self._pieces), []
        return data
