"""Tables are split into parts by rows, and the identity of a pool covers files and parts."""

import shutil

import numpy as np
import pytest

from d2prune.inputs.tables.files import TableShard, pool_identity, split_tables
from tests.inputs.table_pools import PARTS, find_tables
from tests.tables import write_columns, write_datacomp


@pytest.mark.parametrize(("count", "of"), [(0, 3), (1, 3), (10, 3), (12, 4), (5, 1)])
def test_parts_cover_the_rows_without_gap_or_overlap(tmp_path, count, of):
    (file,) = find_tables(str(write_columns(tmp_path, PARTS[:1])))
    rows = [row for index in range(of) for row in TableShard(file, index, of).rows(count)]
    assert rows == list(range(count))


def test_large_arrays_are_split_and_the_identity_depends_on_it(tmp_path):
    files = find_tables(str(write_datacomp(tmp_path, PARTS[:2])))
    size = files[0].npz.size
    assert [(shard.index, shard.of) for shard in split_tables(files, size)] == [(0, 1), (0, 1)]
    parts = split_tables(files, size - 1)
    assert [(shard.name, shard.index, shard.of) for shard in parts][:2] == [
        ("00000000", 0, 2),
        ("00000000", 1, 2),
    ]
    assert pool_identity(parts) != pool_identity(split_tables(files, size))
    moved = find_tables(str(shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-moved")))
    assert pool_identity(split_tables(moved, size)) == pool_identity(split_tables(files, size))
    np.savez(tmp_path / "00000001.npz", l14_img=np.ones((5, 2)))
    assert pool_identity(split_tables(find_tables(str(tmp_path)), size)) != pool_identity(
        split_tables(files, size)
    )
