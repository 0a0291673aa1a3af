from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from d2prune.parts import files
from d2prune.parts.reader import Parts
from d2prune.store import artifacts
from d2prune.store.parquet_format import footer_checksum
from tests.report.synthetic import build_run, items


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return build_run(tmp_path_factory.mktemp("run"), items(130))


def parts_of(run, select=None):
    return Parts(run.work_dir, {"embed": run.embed.units, "select": (select or run.select).units})


def test_take_keeps_the_order_asked_for_and_repeats(run):
    pool = parts_of(run)
    positions = np.array([129, 0, 41, 0, 40, 39])
    table = pool.take_merged(positions, ("uid", "caption", "kept"))
    image, text = pool.take_vectors(positions)
    assert table.column_names == ["uid", "caption", "kept"]
    assert [int(uid, 16) for uid in table["uid"].to_pylist()] == positions.tolist()
    assert [int(caption.split()[-1]) for caption in table["caption"].to_pylist()] == positions.tolist()
    assert image.shape == text.shape == (6, 12)
    assert np.array_equal(image[1], image[3])
    assert not np.array_equal(image[0], image[1])


def test_no_positions_have_the_width_of_the_pool(run):
    no_rows = np.zeros(0, np.int64)
    assert [side.shape for side in parts_of(run).take_vectors(no_rows)] == [(0, 12), (0, 12)]
    assert [side.shape for side in Parts("/none", {"embed": []}).take_vectors(no_rows)] == [(0, 0), (0, 0)]


def test_an_empty_part_holds_no_position(run):
    pool = parts_of(run)
    assert np.diff(pool.spans.starts).tolist() == [40, 0, 40, 40, 10]
    assert pool.spans.part_of(np.array([0, 39, 40, 80, 129])).tolist() == [0, 0, 2, 3, 4]
    assert [start for start, _ in pool.read_all(files.DECISIONS, ["kept"])] == [0, 40, 80, 120]


def test_embeddings_come_from_the_row_groups_that_hold_them(run):
    pool = parts_of(run)
    positions = np.array([39, 0, 41, 16, 17, 0])
    image, text = pool.take_vectors(positions)
    unit = run.embed.units[0]
    url = artifacts.unit_url(f"{run.work_dir}/embed", unit.key, "embeddings.parquet")
    before = Path(url).read_bytes()
    try:
        pq.write_table(pq.read_table(url), url, row_group_size=16)
        data = Path(url).read_bytes()
        record = next(file for file in unit.files if file.name == "embeddings.parquet")
        other = replace(record, size=len(data), footer=footer_checksum(data))
        files_of_unit = tuple(other if file is record else file for file in unit.files)
        units = (replace(unit, files=files_of_unit), *run.embed.units[1:])
        again = Parts(run.work_dir, {"embed": units}).take_vectors(positions)
    finally:
        Path(url).write_bytes(before)
    assert np.array_equal(image, again[0]) and np.array_equal(text, again[1])
