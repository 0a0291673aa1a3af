"""The sharded graph equals the graph built in memory, byte for byte, for any layout and after failures."""

from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from d2prune.d2.budget import drop_mask
from d2prune.errors import InfrastructureError, UserError
from d2prune.execution import InProcess, Resources
from d2prune.graph.build import delete_intermediate_units, other_unit_keys, plan_job
from d2prune.graph.increment.sequence import ALL_STEPS
from d2prune.graph.latest import trained_key
from d2prune.graph.params import Layout, choose_partitions
from d2prune.graph.steps.sequence import STEPS
from d2prune.knn.features import features
from d2prune.knn.projections import ProjectedRows
from d2prune.parts.neighbors import read_graph
from d2prune.parts.reader import Parts
from tests.graph.pools import PARAMS, build_graph, clustered, embed, in_memory, same_bytes
from tests.knn.rows import always_project
from tests.pools import tree

SHARDED = Layout(whole_below=0, partitions=4, buckets=3, batch_rows=200, in_transit=None)


@pytest.mark.parametrize(("partitions", "copies"), [(1, 0.5), (4, 0.0), (4, 0.5), (16, 0.5)])
def test_the_number_of_partitions_does_not_change_the_graph(tmp_path, partitions, copies):
    rows = clustered(1500, copies=copies)
    parts = embed(tmp_path / "embed", rows)
    layout = replace(SHARDED, partitions=partitions, buckets=partitions, threads=partitions % 3 + 1)
    built = build_graph(tmp_path, parts, PARAMS, layout, InProcess())
    same_bytes(*built, *in_memory(rows, PARAMS))


def test_searching_by_projections_does_not_change_the_graph(tmp_path, monkeypatch):
    rows = clustered(1500, n_dims=24, copies=0.2)
    expected = in_memory(rows, PARAMS)
    always_project(monkeypatch)
    used = []
    get = ProjectedRows.__getitem__
    monkeypatch.setattr(ProjectedRows, "__getitem__", lambda self, rows: used.append(rows) or get(self, rows))
    parts = embed(tmp_path / "embed", rows)
    same_bytes(*build_graph(tmp_path, parts, PARAMS, replace(SHARDED, threads=2), InProcess()), *expected)
    assert used


@pytest.mark.parametrize("visitors", [1, 150, 10_000])
def test_slices_limit_the_visitors_of_a_unit_of_the_search(tmp_path, visitors):
    rows = clustered(1500, copies=0.2)
    parts = embed(tmp_path / "embed", rows, n_parts=12)
    job, receipts, facts = build_graph(
        tmp_path, parts, PARAMS, replace(SHARDED, visitors=visitors), InProcess()
    )
    same_bytes(job, receipts, facts, *in_memory(rows, PARAMS))
    assert job.slices == {1: 12, 150: job.slices, 10_000: 1}[visitors]
    served = [job.receipt("search", index).counters["queries"] for index in range(4 * job.slices)]
    largest_part = max(receipt.rows("embeddings.parquet") for receipt in parts)
    assert max(served) <= visitors + 2 * largest_part
    delete_intermediate_units(job)
    assert not list(Path(job.folder).glob("units/search-*/*"))


class PeakInTransit(InProcess):
    """An executor that notes how many bytes of rows in transit there are after each unit."""

    def __init__(self, work_dir):
        super().__init__()
        self.work_dir, self.peak = work_dir, 0

    def map(self, make_worker, units, resources):
        for receipt in super().map(make_worker, units, resources):
            files = self.work_dir.glob("graph/units/send-*/visitors.bin")
            self.peak = max(self.peak, sum(file.stat().st_size for file in files))
            yield receipt


def test_waves_limit_the_rows_in_transit(tmp_path):
    rows = clustered(1500, copies=0.2)
    parts = embed(tmp_path / "embed", rows)
    peaks = {}
    for in_transit, waves in ((None, 1), (1.0, None), (1e-9, 16)):
        work_dir = tmp_path / str(in_transit)
        (work_dir / "graph").mkdir(parents=True)
        (work_dir / "embed").symlink_to(tmp_path / "embed")
        executor = PeakInTransit(work_dir)
        layout = replace(SHARDED, partitions=16, in_transit=in_transit)
        job, receipts, facts = build_graph(work_dir, parts, PARAMS, layout, executor)
        same_bytes(job, receipts, facts, *in_memory(rows, PARAMS))
        assert job.waves == (waves or job.waves)
        assert not list(work_dir.glob("graph/units/send-*/*"))
        peaks[in_transit] = executor.peak
    assert peaks[1e-9] < peaks[1.0] < 0.75 * peaks[None]


def test_a_run_that_ends_between_waves_sends_nothing_twice(tmp_path):
    rows = clustered(800, copies=0.2)
    parts = embed(tmp_path / "embed", rows)
    layout = replace(SHARDED, in_transit=1e-9)
    first, second = Failing("search-00000002", 0), Failing("none", -1)
    with pytest.raises(InfrastructureError, match="killed"):
        build_graph(tmp_path, parts, PARAMS, layout, first)
    built = build_graph(tmp_path, parts, PARAMS, layout, second)
    assert not set(first.complete) & set(second.complete)
    assert sum(key.startswith("send") for key in first.complete + second.complete) == 4 * len(parts)
    same_bytes(*built, *in_memory(rows, PARAMS))


@pytest.mark.parametrize(
    "changes",
    [
        {"nlist": 500, "nprobe": 2},
        {"nlist": 7, "nprobe": 7},
        {"nlist": 10_000, "nprobe": 10_000, "n_neighbors": 9},
        {"nlist": 1, "nprobe": 1, "seed": 5},
    ],
    ids=str,
)
@pytest.mark.parametrize("n_rows", [1, 2, 6, 300])
def test_tiny_pools_and_extreme_numbers_of_lists(tmp_path, changes, n_rows):
    params = replace(PARAMS, **changes)
    rows = clustered(n_rows, n_dims=3, copies=0.3)
    built = build_graph(tmp_path, embed(tmp_path / "embed", rows, n_parts=3), params, SHARDED, InProcess())
    same_bytes(*built, *in_memory(rows, params))


def test_a_target_recall_gives_the_same_nprobe_and_recall_as_in_memory(tmp_path):
    params = replace(PARAMS, nprobe=None, target_recall=0.9)
    rows = clustered(21_000, n_dims=8, copies=0.02)
    job, receipts, facts = build_graph(
        tmp_path, embed(tmp_path / "embed", rows), params, SHARDED, InProcess()
    )
    assert 1 <= facts["nprobe"] < facts["nlist"] and facts["recall"] >= 0.85
    same_bytes(job, receipts, facts, *in_memory(rows, params))


def test_image_and_text_embeddings_together(tmp_path):
    params = replace(PARAMS, features="image+text")
    image, text = clustered(600, seed=1), clustered(600, seed=2)
    built = build_graph(tmp_path, embed(tmp_path / "embed", image, text), params, SHARDED, InProcess())
    same_bytes(*built, *in_memory(features("image+text", image, text), params))


def test_identical_rows_are_searched_once_per_part(tmp_path):
    rows = np.concatenate([np.ones((20_000, 8)), clustered(300, 8), np.ones((10_000, 8)), np.eye(8)]).astype(
        np.float16
    )
    job, receipts, facts = build_graph(
        tmp_path, embed(tmp_path / "embed", rows), PARAMS, SHARDED, InProcess()
    )
    same_bytes(job, receipts, facts, *in_memory(rows, PARAMS))
    # Without collapsing, the search would compare all pairs of them.
    queries = sum(job.receipt("search", partition).counters["queries"] for partition in range(4))
    assert queries < 2_000


def test_samples_below_the_cut_off_are_excluded(tmp_path):
    params = replace(PARAMS, drop_score="aum", drop_fraction=0.3)
    rows = clustered(900, copies=0.2)
    score = np.random.default_rng(3).choice(np.linspace(-1, 1, 40), 900).astype(np.float32)
    cut_off = drop_mask(score, 0.3)
    job, receipts, facts = build_graph(
        tmp_path, embed(tmp_path / "embed", rows, score=score), params, SHARDED, InProcess()
    )
    same_bytes(job, receipts, facts, *in_memory(rows, params, np.flatnonzero(~cut_off)))
    assert read_graph(job.folder, receipts)[1].tolist() == cut_off.tolist()
    assert sum(receipt.counters["cut_off"] for receipt in receipts) == 270


@pytest.mark.parametrize("given", [{}, {"quantiser": "q" * 32}])
def test_another_input_of_the_cut_off_completes_no_unit(tmp_path, given):
    parts = embed(tmp_path / "embed", clustered(50))
    pool, folder = Parts(str(tmp_path), {"embed": parts}), str(tmp_path / "graph")
    keys = []
    for rescore in "rs":
        inputs = {"embed": "e" * 32, "rescore": rescore * 32} | given
        job = plan_job(pool, inputs, folder, PARAMS, SHARDED)
        manifest = {"params": asdict(PARAMS), "inputs": inputs, "units": parts, "facts": {}}
        kept = set(other_unit_keys(manifest))
        assert {job.key("lists", 1), job.key("whole"), job.key("state", 2)} <= kept
        keys.append(kept | {job.key(step.name) for step in ALL_STEPS})
    assert not keys[0] & keys[1]


def test_in_memory_and_sharded_commit_the_same_units(tmp_path):
    rows = clustered(400, copies=0.1)
    for name, layout in (("whole", Layout()), ("sharded", SHARDED)):
        parts = embed(tmp_path / name / "embed", rows)
        job, _, _ = build_graph(tmp_path / name, parts, PARAMS, layout, InProcess())
        delete_intermediate_units(job)
    whole, sharded = (tree(tmp_path / name / "graph") for name in ("whole", "sharded"))
    result = {name for name in whole if name.startswith("units/neighbors-")}
    assert len(result) == 2 * len(parts)
    assert {name: sharded[name] for name in result} == {name: whole[name] for name in result}
    units = [None] * len(parts)
    manifest = {"params": asdict(PARAMS), "inputs": job.inputs, "units": units, "facts": job.facts}
    others = {name.split("/")[1] for name in whole.keys() | sharded.keys() if name not in result}
    others.remove(trained_key(job.trained))
    assert others == {key for key in other_unit_keys(manifest) if not key.startswith("checked-")}


class Failing:
    """An in-process executor that fails one unit of a step, after `after` other units of that step."""

    def __init__(self, step, after):
        self.inner, self.step, self.after, self.complete = InProcess(), step, after, []

    def map(self, make_worker, units, resources):
        for unit in units:
            if unit.key.startswith(self.step):
                if self.after == 0:
                    raise InfrastructureError("killed")
                self.after -= 1
            yield from self.inner.map(make_worker, [unit], resources)
            self.complete.append(unit.key)


@pytest.mark.parametrize("step", ["distinct", "truth", "search", "merge", "neighbors"])
def test_a_resumed_run_repeats_no_complete_unit(tmp_path, step):
    rows = clustered(500, copies=0.2)
    parts = embed(tmp_path / "embed", rows)
    first, second = Failing(step, 2), Failing("none", -1)
    with pytest.raises(InfrastructureError, match="killed"):
        build_graph(tmp_path, parts, PARAMS, SHARDED, first)
    built = build_graph(tmp_path, parts, PARAMS, SHARDED, second)
    assert not set(first.complete) & set(second.complete)
    same_bytes(*built, *in_memory(rows, PARAMS))


class Concurrent:
    """An executor whose workers run concurrently and finish in any order."""

    def __init__(self, workers):
        self.workers = workers

    def map(self, make_worker, units, resources):
        shuffled = np.random.default_rng(self.workers).permutation(len(units))
        with ThreadPoolExecutor(self.workers) as pool:
            running = [pool.submit(make_worker(), units[index]) for index in shuffled]
            yield from (future.result() for future in as_completed(running))


@pytest.mark.parametrize(("workers", "partitions"), [(2, 4), (5, 16)])
def test_the_number_and_order_of_workers_do_not_change_the_graph(tmp_path, workers, partitions):
    rows = clustered(1500, copies=0.3)
    layout = replace(SHARDED, partitions=partitions)
    built = build_graph(
        tmp_path, embed(tmp_path / "embed", rows, n_parts=7), PARAMS, layout, Concurrent(workers)
    )
    same_bytes(*built, *in_memory(rows, PARAMS))


def test_a_worker_killed_on_ray_does_not_change_the_graph(tmp_path, ray_executor):
    rows = clustered(1200, copies=0.2)
    parts = embed(tmp_path / "embed", rows)
    # Every step starts its own Ray workers, which takes seconds: those before the search run here.
    with pytest.raises(InfrastructureError, match="killed"):
        build_graph(tmp_path, parts, PARAMS, SHARDED, Failing("search", 0))
    killing = Killing(ray_executor, tmp_path / "killed")
    built = build_graph(tmp_path, parts, PARAMS, SHARDED, killing, Resources(2))
    assert (tmp_path / "killed").exists()
    same_bytes(*built, *in_memory(rows, PARAMS))


class Killing:
    """An executor that kills one worker once, in the middle of the search; the steps after it have one."""

    def __init__(self, inner, mark: Path):
        self.inner, self.mark = inner, mark

    def map(self, make_worker, units, resources):
        if not any(unit.key.startswith("search") for unit in units):
            resources = replace(resources, workers=1)
        return self.inner.map(KillOnce(make_worker, self.mark), units, resources)


class KillOnce:
    def __init__(self, make_worker, mark):
        self.make_worker, self.mark = make_worker, mark

    def __call__(self):
        worker = self.make_worker()

        def work(unit):
            if unit.key.startswith("search-00000002") and not self.mark.exists():
                import os

                self.mark.touch()
                os._exit(1)
            return worker(unit)

        return work


def test_a_graph_that_misses_the_target_recall_is_refused(tmp_path):
    rows = np.random.default_rng(0).normal(size=(2000, 24)).astype(np.float16)
    params = replace(PARAMS, nlist=200, nprobe=1)
    parts = embed(tmp_path / "embed", rows)
    _, _, facts = build_graph(tmp_path, parts, params, SHARDED, InProcess())
    assert facts["recall_high"] < 0.9
    # A configuration never has both; here they stand for a target that tuning reached on its sample
    # and the check misses on the other.
    missed = r"graph.target_recall: found recall 0\.\d+ .* with nprobe 1 of 200 lists; expected 0.9"
    with pytest.raises(UserError, match=missed):
        build_graph(tmp_path, parts, replace(params, target_recall=0.9), SHARDED, InProcess())


@pytest.mark.parametrize("layout", [Layout(), SHARDED], ids=["whole", "sharded"])
@pytest.mark.parametrize(
    ("value", "fault"), [(0, "all zeros"), (np.nan, "NaN, infinite or too large values")]
)
def test_a_degenerate_embedding_is_reported_with_its_shard_and_key(tmp_path, layout, value, fault):
    rows = clustered(300)
    rows[217] = value
    parts = embed(tmp_path / "embed", rows)
    before = np.cumsum([0, *(receipt.rows("embeddings.parquet") for receipt in parts)])
    part = int(np.searchsorted(before, 217, side="right")) - 1
    sample = (
        rf"image embedding of row 217 \(shard {part:05d}.tar, key sample{217 - before[part]}\): found {fault}"
    )
    with pytest.raises(UserError, match=sample):
        build_graph(tmp_path, parts, PARAMS, layout, InProcess())


def test_unit_keys_depend_on_the_layout_only_in_the_steps_that_name_it(tmp_path):
    parts = embed(tmp_path / "embed", clustered(100))
    job = plan_job(
        Parts(str(tmp_path), {"embed": parts}), {"embed": "e" * 32}, str(tmp_path / "graph"), PARAMS, SHARDED
    )
    for name in ("buckets", "partitions", "slices", "wave_bounds"):
        other = replace(job, **{name: (0, 2) if name == "wave_bounds" else getattr(job, name) + 1})
        changed = {step.name for step in STEPS if other.key(step.name) != job.key(step.name)}
        assert changed == {step.name for step in STEPS if name in step.layout}


@pytest.mark.parametrize(
    ("gib", "cores", "partitions"),
    [
        (0.1, None, 1),
        (4, None, 16),
        (100, None, 64),
        (1000, None, 500),
        (0.1, 2, 1),
        (4, 2, 8),
        (4, 16, 16),
        (18.5, 1, 19),
        (18.5, 16, 64),
        (1000, 2, 500),
    ],
)
def test_a_single_machine_has_fewer_and_larger_partitions(gib, cores, partitions):
    assert choose_partitions(round(gib * 2**30), cores) == partitions
