"""A damaged byte in what `Parts` reads is one line that names the file, never a wrong answer."""

from pathlib import Path

import numpy as np
import pytest

from d2prune.errors import InfrastructureError
from d2prune.parts import files
from d2prune.parts.reader import Parts
from d2prune.store import artifacts, table_writer
from d2prune.store.parquet_format import footer_checksum
from tests.report.synthetic import build_run, items

PART = 2
COLUMNS = {
    files.SAMPLES: ["uid", "caption", "clip_score", "offset"],
    files.EMBEDDINGS: ["image_emb", "text_emb"],
    files.DECISIONS: ["uid", "selection_fixed", "kept", "reason"],
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    run = build_run(tmp_path_factory.mktemp("run"), items(130))
    return Parts(run.work_dir, {"embed": run.embed.units, "select": run.select.units})


def read(parts, table):
    """The rows of one part, in every way that does not read the whole file."""
    start, _ = parts.spans.bounds(PART)
    rows = [
        parts.peek(PART, table, COLUMNS[table]).to_pylist(),
        parts.take(np.array([start + 3, start]), table, COLUMNS[table]).to_pylist(),
    ]
    if table == files.EMBEDDINGS:
        rows += [side.tobytes() for side in parts.take_vectors(np.array([start + 3]))]
    return rows


@pytest.mark.parametrize("table", COLUMNS)
def test_every_flipped_byte_that_is_read_is_reported(parts, table):
    receipt = parts.receipt(PART, table)
    path = Path(artifacts.unit_url(parts.folder(table), receipt.key, table))
    data, expected, reported = path.read_bytes(), read(parts, table), 0
    # The footer whole: without its checksum, some of its bytes give other values.
    footer = int.from_bytes(data[-8:-4], "little") + 8
    positions = [*range(0, len(data) - footer, 151), *range(len(data) - footer, len(data), 29)]
    for position in positions:
        for bit in (1, 128):
            path.write_bytes(data[:position] + bytes([data[position] ^ bit]) + data[position + 1 :])
            try:
                assert read(parts, table) == expected, position
            except InfrastructureError as error:
                assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
                reported += 1
    path.write_bytes(data)
    assert read(parts, table) == expected
    # Columns that are not read are not checked.
    assert reported >= len(positions)


@pytest.mark.parametrize("change", [lambda data: b"", lambda data: data[:-1], lambda data: bytes(len(data))])
def test_short_and_zeroed_files_are_reported(parts, change):
    receipt = parts.receipt(PART, files.DECISIONS)
    path = Path(artifacts.unit_url(parts.folder(files.DECISIONS), receipt.key, files.DECISIONS))
    data = path.read_bytes()
    path.write_bytes(change(data))
    with pytest.raises(InfrastructureError, match=r"decisions\.parquet"):
        read(parts, files.DECISIONS)
    path.write_bytes(data)


@pytest.mark.parametrize("rows", [0, 1, 25])
def test_a_streamed_table_has_the_footer_that_its_record_states(tmp_path, rows):
    import pyarrow as pa

    table = pa.table({"x": np.arange(rows)})
    with table_writer.open_table(str(tmp_path), "unit", "t.parquet", table.schema, 10) as writer:
        writer.write(table)
    data = Path(artifacts.unit_url(str(tmp_path), "unit", "t.parquet")).read_bytes()
    assert writer.record.footer == footer_checksum(data)
