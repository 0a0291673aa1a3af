"""Columns of vectors round-trip through arrays, files, slices and empty tables."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from d2prune.store import artifacts, schemas
from d2prune.store.columns import vector_column, vectors


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (7, 5)])
def test_vectors_survive_a_file_bit_for_bit(shape):
    rows = np.random.default_rng(0).standard_normal(shape).astype(np.float16)
    rows[:1, 0] = np.nan
    data = artifacts.table_bytes(pa.table({"image_emb": vector_column(rows)}))
    column = pq.read_table(pa.BufferReader(data))["image_emb"]
    assert vectors(column).dtype == np.float16 and vectors(column).shape == shape
    assert vectors(column).tobytes() == rows.tobytes()
    assert vectors(column.slice(1)).tobytes() == rows[1:].tobytes()
    again = pa.chunked_array([*column.chunks, *column.slice(1).chunks], column.type)
    assert vectors(again).tobytes() == rows.tobytes() + rows[1:].tobytes()


def test_float16_vectors_are_stored_without_compression_and_dictionary():
    rows = np.ones((10, 4), np.float16)
    table = pa.Table.from_arrays([vector_column(rows)] * 2, schema=schemas.embeddings(4))
    column = pq.ParquetFile(pa.BufferReader(artifacts.table_bytes(table))).metadata.row_group(0).column(0)
    assert column.compression == "UNCOMPRESSED" and "RLE_DICTIONARY" not in column.encodings


def test_other_types_are_refused():
    with pytest.raises(TypeError, match="vectors of float32; expected float16"):
        vector_column(np.ones((2, 3), np.float32))
