"""Exact copies: grouping by hash on any number of buckets, and the hashes of tables."""

from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.config.model import RunConfig
from d2prune.dedup.copies import _HASHED, find_copies, parse_hex
from d2prune.errors import UserError
from d2prune.execution import InProcess
from d2prune.parts.files import DECISIONS
from d2prune.parts.reader import Parts
from d2prune.runs.driver import run
from d2prune.runs.plan import plan_run
from tests.tables import make_rows, write_datacomp

SAMPLES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(1, 3)), max_size=20)


@given(SAMPLES, st.randoms())
@settings(deadline=None)
def test_the_best_of_each_group_stays(samples, random):
    """Hashes that differ in their last word alone are different images."""
    records = np.zeros(len(samples), _HASHED)
    groups = defaultdict(list)
    for position, (first, last, key) in enumerate(samples):
        records[position] = first, 0, 0, last, key, position
        groups[first, last].append((-key, position))
    best = {position: min(group)[1] for group in groups.values() for _, position in group}
    expected = {position: keeper for position, keeper in best.items() if position != keeper}
    order = list(range(len(samples)))
    random.shuffle(order)
    copies = find_copies(records[order])
    assert dict(zip(copies["position"].tolist(), copies["keeper"].tolist(), strict=True)) == expected


def test_only_64_hex_digits_are_hashes():
    texts = ["0f" * 32, "0F" * 32, "0f" * 31, "", None, "zz" * 32, "0f" * 32 + "\n", " " + "0f" * 32]
    assert parse_hex(pa.array(texts, pa.string())).to_pylist() == [b"\x0f" * 32] * 2 + [None] * 6


@pytest.fixture
def metadata(tmp_path):
    """Every third image occurs twice, once in upper case; some hashes are missing, one table is empty."""
    folder = write_datacomp(tmp_path / "meta", [make_rows(60, 1), make_rows(0, 3), make_rows(40, 2)])
    first, second = (pq.read_table(folder / f"{index:08d}.parquet") for index in (0, 2))
    hashes = first["sha256"].to_pylist()
    copied = [hashes[row].upper() if row % 3 == 0 else None if row % 3 == 1 else "" for row in range(40)]
    column = second.schema.get_field_index("sha256")
    second = second.set_column(column, "sha256", pa.array(copied, pa.string()))
    pq.write_table(second, folder / "00000002.parquet")
    return folder


def configure(folder, tmp_path, **dedup):
    return RunConfig.parse(
        {
            "input": str(folder),
            "work_dir": str(tmp_path / "work"),
            "output": str(tmp_path / "output"),
            "graph": {"n_neighbors": 4},
            "select": {"fraction": 0.3},
            "dedup": dedup,
        },
        "test",
    )


def test_tables_are_deduplicated_by_their_column(metadata, tmp_path):
    config = configure(metadata, tmp_path, exact=True)
    manifests = run(config, InProcess(), stop_after="select").manifests
    assert manifests["select"].counters["duplicates"] == 14
    parts = Parts(config.work_dir, {name: manifests[name].units for name in ("embed", "select")})
    table = pa.concat_tables(table for _, table in parts.read_all(DECISIONS, ["reason", "suppressor"]))
    for position, row in enumerate(table.to_pylist()):
        if row["reason"] == "duplicate":
            assert abs(position - row["suppressor"]) == 60 and min(position, row["suppressor"]) % 3 == 0


def test_tables_are_imported_as_before_unless_exact_copies_are_dropped(metadata, tmp_path):
    plain, near, exact = (
        plan_run(configure(metadata, tmp_path, **dedup))["embed"]
        for dedup in ({}, {"near": 0.9}, {"exact": True})
    )
    assert plain.fingerprint == near.fingerprint != exact.fingerprint
    assert exact.params.fields == (("sha256", "text"),)


def test_tables_without_hashes_are_one_line(metadata, tmp_path):
    for path in metadata.glob("*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns("sha256"), path)
    with pytest.raises(UserError, match=r"dedup\.exact: .*parquet has no column sha256; expected") as error:
        plan_run(configure(metadata, tmp_path, exact=True))
    assert "\n" not in str(error.value)
    plan_run(configure(metadata, tmp_path, near=0.9))


@pytest.mark.parametrize("near", [0, -1, 1.1, "high"])
def test_wrong_cosines_are_one_line(tmp_path, near):
    with pytest.raises(UserError, match=r"dedup\.near"):
        configure(tmp_path, tmp_path, near=near)
