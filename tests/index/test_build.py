"""An index is what brute force finds, whatever the partitions, the store, the lists' origin and failures."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import faiss
import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from d2prune import store
from d2prune.errors import InfrastructureError, UserError
from d2prune.execution import InProcess
from d2prune.graph import trained
from d2prune.graph.params import Layout
from d2prune.index.build import build_index
from d2prune.knn.quantiser import Quantiser
from tests.graph.pools import PARAMS, clustered
from tests.index.pools import IN_LISTS, IN_MEMORY, finish, rows_of
from tests.pools import tree

EXACT = replace(PARAMS, nprobe=None)
CUT = replace(PARAMS, drop_score="aum", drop_fraction=0.3)
NO_EDGES = replace(EXACT, n_neighbors=0)
KINDS = {
    "lists of the graph": {},
    "lists of the graph, with copies": {"copies": 0.5},
    "cut-off": {"params": CUT},
    "graph in memory": {"layout": IN_MEMORY},
    "exact graph": {"params": EXACT},
    "no edges": {"params": NO_EDGES},
    "both sides": {"params": replace(PARAMS, features="image+text")},
    "texts": {"params": replace(PARAMS, features="text")},
    "one list": {"params": replace(PARAMS, nlist=1, nprobe=1)},
    "one row": {"n_rows": 1, "n_parts": 3},
    "one part": {"n_parts": 2},
}


def make(folder, n_rows=200, copies=0.0, params=PARAMS, layout=IN_LISTS, n_parts=4):
    score = np.random.default_rng(3).random(n_rows).astype(np.float32)
    text = clustered(n_rows, seed=5)
    return finish(folder, clustered(n_rows, copies=copies), text, params, layout, n_parts, score)


def read(folder):
    return [Path(folder, name).read_bytes() for name in ("pool.faiss", "pool.ivfdata", "ids.parquet")]


def test_lists_are_prepared_once_for_all_parts(tmp_path, monkeypatch):
    run, prepared = make(tmp_path / "work", layout=IN_MEMORY), []
    monkeypatch.setattr(
        trained, "Quantiser", lambda centroids: prepared.append(centroids) or Quantiser(centroids)
    )
    build_index(run, str(tmp_path / "merged"))
    assert len(prepared) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_partitions_gives_the_index_that_finds_what_brute_force_finds(tmp_path, kind):
    run, out = make(tmp_path / "work", **KINDS[kind]), tmp_path / "merged"
    build_index(run, str(out))
    expected = read(out)
    for partition_bytes in (2_500, 1) if kind == "cut-off" else (2_500,):
        for folder in (tmp_path / "work" / "index", out):
            _remove(folder)
        build_index(run, str(out), partition_bytes=partition_bytes)
        units = [
            path.name for path in (tmp_path / "work" / "index" / "units").iterdir() if any(path.iterdir())
        ]
        assert (len(units) > 2) == (len(run) > 1 and kind != "one list")  # the layout and the partitions
        assert read(out) == expected

    index, rows = faiss.read_index(str(out / "pool.faiss")), rows_of(run)
    assert index.ntotal == len(run) and index.metric_type == faiss.METRIC_INNER_PRODUCT
    index.nprobe = index.nlist
    top = min(7, len(rows))
    similarities, ids = index.search(rows, top)
    products = rows @ rows.T
    assert np.allclose(similarities, -np.sort(-products, axis=1)[:, :top], atol=2e-3)
    assert np.allclose(np.take_along_axis(products, ids, 1), similarities, atol=2e-3)
    assert sorted(_all_ids(index)) == list(range(len(run)))


def _remove(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def _all_ids(index):
    lists = index.invlists
    for number in range(index.nlist):
        yield from faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number)).tolist()


def test_rows_lie_in_the_lists_in_which_the_graph_searched_them(tmp_path):
    run = make(tmp_path, copies=0.3)
    index = faiss.read_index(build_index(run) + "/pool.faiss")
    centroids = faiss.rev_swig_ptr(faiss.downcast_index(index.quantizer).get_xb(), index.nlist * index.d)
    nearest = faiss.knn(rows_of(run), centroids.reshape(index.nlist, -1).copy(), 1)[1][:, 0]
    lists = index.invlists
    for number in range(index.nlist):
        ids = faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number))
        assert (nearest[ids] == number).all() and (np.diff(ids) > 0).all()


ALONE = """
import json, sys, faiss, numpy as np, pyarrow.parquet as pq
folder, rows = sys.argv[1], np.load(sys.argv[2])
index = faiss.read_index(folder + "/pool.faiss")
index.nprobe = index.nlist
ids = pq.read_table(folder + "/ids.parquet")
found = index.search(rows, 3)[1]
uids = [[ids["uid"][i].as_py() for i in row] for row in found]
print(json.dumps([uids, ids["kept"].to_pylist(), [name for name in sys.modules if "d2prune" in name]]))
"""


def test_faiss_alone_opens_the_index_and_the_table_names_what_it_finds(tmp_path):
    run = make(tmp_path / "work", n_rows=300)
    folder, rows = build_index(run), rows_of(run)
    np.save(tmp_path / "rows.npy", rows[:20])
    command = [sys.executable, "-I", "-c", ALONE, folder, str(tmp_path / "rows.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    uids, kept, modules = json.loads(done.stdout)
    stored = rows.astype(np.float16).astype(np.float32)
    nearest = np.argsort(-(rows[:20] @ stored.T), axis=1)[:, :3]
    assert uids == [[f"{row:032x}" for row in line] for line in nearest]
    assert kept == [row % 3 == 0 for row in range(300)] and modules == []


def test_each_shard_is_an_index_of_its_own(tmp_path):
    run = make(tmp_path / "work")
    build_index(run, partition_bytes=2_500)
    shards = sorted((tmp_path / "work" / "index").glob("units/partition-*/shard.faiss"))
    assert len(shards) > 1
    opened = [faiss.read_index(str(path), faiss.IO_FLAG_ONDISK_SAME_DIR) for path in shards]
    assert sum(index.ntotal for index in opened) == len(run)
    assert sorted(one for index in opened for one in _all_ids(index)) == list(range(len(run)))


class Killed(InProcess):
    """Fails after a number of units; counts them."""

    def __init__(self, after=10**9):
        self.after, self.complete = after, []

    def map(self, make_worker, units, resources):
        for unit in units:
            if len(self.complete) == self.after:
                raise InfrastructureError("killed")
            yield from super().map(make_worker, [unit], resources)
            self.complete.append(unit.key)


@pytest.mark.parametrize("kind", ["cut-off", "exact graph"])
def test_a_killed_index_resumes_without_repeating_a_unit(tmp_path, kind):
    run, out = make(tmp_path / "work", **KINDS[kind]), tmp_path / "merged"
    build_index(run, str(out), partition_bytes=2_500)
    expected = read(out)
    # In the first step of its own, between two steps, and among the partitions.
    for after in (1, 4, 6):
        _remove(tmp_path / "work" / "index")
        _remove(out)
        first, second = Killed(after), Killed()
        with pytest.raises(InfrastructureError, match="killed"):
            build_index(run, str(out), first, partition_bytes=2_500)
        assert not (out / "index.json").exists()
        build_index(run, str(out), second, partition_bytes=2_500)
        assert len(first.complete) == after and not set(first.complete) & set(second.complete)
        assert read(out) == expected


def test_a_body_without_a_record_is_not_taken_for_that_of_another_graph(tmp_path):
    run, other, out = (
        make(tmp_path / "a"),
        make(tmp_path / "b", params=replace(PARAMS, seed=9)),
        tmp_path / "o",
    )
    build_index(other, str(out))
    expected = read(out)
    _remove(out)
    build_index(run, str(out))
    assert (out / "pool.ivfdata").read_bytes() != expected[1]
    (out / "index.json").unlink()
    build_index(other, str(out))
    assert read(out) == expected


def test_a_complete_index_is_not_built_again_and_a_new_selection_changes_the_table_alone(tmp_path):
    run = make(tmp_path / "work")
    folder = build_index(run)
    before, again = tree(tmp_path / "work"), Killed()
    assert build_index(run, executor=again) == folder and again.complete == []
    assert tree(tmp_path / "work") == before
    other = replace(run, select=replace(run.select, fingerprint="f" * 32))
    build_index(other, executor=again)
    changed = {name for name, data in tree(tmp_path / "work").items() if before.get(name) != data}
    assert {name.rsplit("/", 1)[-1] for name in changed if ".lease" not in name} == {"index.json"}
    assert again.complete == []


@pytest.mark.parametrize("partition_bytes", [2**31, 2_500])
@pytest.mark.parametrize("damage", ["shorter", "other bytes", "no layout"])
def test_a_damaged_shard_is_rebuilt(tmp_path, partition_bytes, damage):
    run = make(tmp_path / "work")
    folder = build_index(run, partition_bytes=partition_bytes)
    expected = read(folder)
    units = tmp_path / "work" / "index" / "units"
    if damage == "no layout":
        next(units.glob("layout-*/receipt.json")).unlink()
    else:
        body = sorted(units.glob("*/lists.ivfdata"))[0]
        size = body.stat().st_size if damage == "other bytes" else 5
        body.unlink()
        # Not seen in a listing, only by who reads the shard to merge it: one shard is linked instead.
        body.write_bytes(bytes(size) if partition_bytes == 2_500 else b"short")
    Path(folder, "pool.ivfdata").unlink()
    build_index(run, partition_bytes=partition_bytes)
    assert read(folder) == expected


class Elsewhere(InProcess):
    """Workers and units travel, as to another process."""

    def map(self, make_worker, units, resources):
        return super().map(*pickle.loads(pickle.dumps((make_worker, units, resources))))


def test_a_work_dir_on_object_storage(tmp_path):
    run = make(tmp_path / "work")
    build_index(run, str(tmp_path / "local"))
    _remove(tmp_path / "work" / "index")
    remote = "memory://index-test/work"
    fsspec.filesystem("memory").put(str(tmp_path / "work") + "/", "/index-test/work/", recursive=True)
    there = replace(run, work_dir=remote)
    with pytest.raises(UserError, match="--output: found nothing; expected a local folder"):
        build_index(there)
    for partition_bytes in (2_500, 2**31):
        out = tmp_path / f"out-{partition_bytes}"
        build_index(there, str(out), Elsewhere(), partition_bytes=partition_bytes)
        assert read(out)[1:] == read(tmp_path / "local")[1:]
        index = faiss.read_index(str(out / "pool.faiss"))
        assert index.ntotal == len(run)
    assert store.list_files(f"{remote}/index/units", "*/lists.ivfdata")


def test_refusals(tmp_path):
    run = make(tmp_path / "one")
    other = make(tmp_path / "two", params=replace(PARAMS, n_neighbors=3))
    out = tmp_path / "merged"
    build_index(run, str(out))
    with pytest.raises(UserError, match=r"found the index of graph \w{32}; expected that of graph \w{32}"):
        build_index(other, str(out))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"found thesis.tex; expected an empty folder"):
        build_index(run, str(tmp_path / "full"))
    with pytest.raises(UserError, match="--output: found s3://bucket/x; expected a local folder"):
        build_index(run, "s3://bucket/x")
    image_only = finish(tmp_path / "three", clustered(50), params=replace(EXACT, n_neighbors=0))
    texts = replace(image_only.graph, params={**image_only.graph.params, "features": "text"})
    with pytest.raises(UserError, match="found no column text_emb"):
        build_index(replace(image_only, graph=texts))
    (out / "index.json").write_text('{"graph": "x"}')
    with pytest.raises(UserError, match=r"index.json: cannot be read"):
        build_index(run, str(out))


def test_the_table_has_one_row_per_sample(tmp_path):
    run = make(tmp_path, layout=Layout(whole_below=0))
    table = pq.read_table(build_index(run) + "/ids.parquet")
    assert table.column_names == ["id", "uid", "shard", "key", "kept"]
    assert table["id"].to_pylist() == list(range(200))
    assert table["key"].to_pylist() == [f"key{row}" for row in range(200)]
