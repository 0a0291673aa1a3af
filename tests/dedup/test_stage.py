"""The dedup stage: its tables follow the naive rule on any number of partitions; later stages read them."""

import json
import shutil
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from d2prune.d2.near_duplicates import max_sq_distance
from d2prune.dedup.driver import plan_dedup, run_dedup
from d2prune.dedup.member import CLOSING, DedupMember
from d2prune.dedup.params import DedupParams
from d2prune.execution import InProcess, Resources
from d2prune.explore.api import Explorer
from d2prune.explore.explain import explain, read_ranking
from d2prune.explore.terminal import print_explanations
from d2prune.knn.csr import Graph
from d2prune.parts.files import DECISIONS, DUPLICATES, NEIGHBORS, RANKS, SAMPLES
from d2prune.parts.neighbors import read_graph
from d2prune.parts.reader import Parts
from d2prune.report.collect import collect
from d2prune.report.page import render
from d2prune.report.record import ReportParams
from d2prune.report.stage import run_record
from d2prune.report.summary import summary_rows
from d2prune.rounds.group import run_to_completion
from d2prune.runs.driver import run
from d2prune.runs.finished import open_run
from d2prune.runs.plan import plan_run
from d2prune.store import artifacts
from d2prune.sweep.evaluate import SweepGrid, run_sweep
from d2prune.verify.folder import verify
from tests.oracles import naive_deduplicate
from tests.pools import add, draw, tree, write_pool
from tests.rounds.graph_member import LossyGroup


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Four tars of different images, and two of images that occur up to eight times."""
    folder = write_pool(tmp_path_factory.mktemp("pool"), shards=4, samples=20)
    for shard in (4, 5):
        with tarfile.open(folder / f"{shard:08d}.tar", "w") as tar:
            for index in range(24):
                key = f"{shard:05d}{index:04d}"
                add(tar, f"{key}.jpg", draw("circle", "red", index % 6))
                caption = ("a red circle", "some photo", "sale")[index % 3]
                add(tar, f"{key}.txt", f"{caption} {index}".encode())
                add(tar, f"{key}.json", json.dumps({"uid": f"{shard:016x}{index:016x}"}).encode())
    return folder


@pytest.fixture
def graph(configure):
    """A configuration whose graph is built, its parts and rows, and the cosine of a third of its edges."""
    config = configure()
    manifests = run(config, InProcess(), stop_after="graph").manifests
    parts = Parts(config.work_dir, {stage: manifests[stage].units for stage in ("embed", "graph")})
    rows, _ = read_graph(parts.folder(NEIGHBORS), parts.units("graph"))
    cosine = 1 - float(np.quantile(rows.sq_distances, 1 / 3)) / 2
    return config, parts, rows, cosine


def naive(parts, rows, exact, near):
    """Keeper of each sample or -1, and whether it is an exact copy."""
    table = pa.concat_tables(table for _, table in parts.read_all(SAMPLES, ["clip_score", "image_sha256"]))
    score, hashes = table["clip_score"].to_numpy(), table["image_sha256"].to_pylist()
    n = len(score)
    copy_of = [-1] * n
    if exact:
        best = {}
        for i in sorted(range(n), key=lambda i: (-score[i], i)):
            copy_of[i] = best.setdefault(hashes[i], i)
        copy_of = [-1 if of == i else of for i, of in enumerate(copy_of)]
    left = [i for i in range(n) if copy_of[i] < 0]
    keeper = [-1] * n
    if near is not None:
        number = {i: k for k, i in enumerate(left)}
        lists = [[(number[j], d) for j, d in zip(*row(rows, i), strict=True) if j in number] for i in left]
        sub = Graph(
            np.cumsum([0, *map(len, lists)]),
            np.array([j for near_of in lists for j, _ in near_of], np.int64),
            np.array([d for near_of in lists for _, d in near_of], np.float32),
        )
        found = naive_deduplicate(sub, score[left].tolist(), float(max_sq_distance(near)))
        for i, k in zip(left, found, strict=True):
            keeper[i] = left[k] if k >= 0 else -1
    for i, of in enumerate(copy_of):
        if of >= 0:
            keeper[i] = keeper[of] if keeper[of] >= 0 else of
    return keeper, [of >= 0 for of in copy_of]


def row(graph, i):
    chosen = slice(*graph.indptr[i : i + 2])
    return graph.indices[chosen].tolist(), graph.sq_distances[chosen].tolist()


def dedup(parts, folder, exact, near, workers, executor=None, **resources):
    params = DedupParams(exact, near, "clip_score")
    job = plan_dedup(parts, str(folder), f"{exact} {near}", params, workers)
    return job, run_dedup(job, executor or InProcess(), Resources(workers, **resources))


@pytest.mark.parametrize(("exact", "with_near"), [(True, False), (False, True), (True, True)])
def test_tables_follow_the_naive_rule_on_any_number_of_partitions(graph, tmp_path, exact, with_near):
    _, parts, rows, cosine = graph
    near = cosine if with_near else None
    keeper, is_copy = naive(parts, rows, exact, near)
    folder = tmp_path / "dedup"
    _, receipts = dedup(parts, folder, exact, near, 1)
    uids = [uid for _, table in parts.read_all(SAMPLES, ["uid"]) for uid in table["uid"].to_pylist()]
    table = pa.concat_tables(artifacts.read_table(str(folder), receipt, DUPLICATES) for receipt in receipts)
    assert table["keeper"].to_pylist() == keeper
    assert table["dropped"].to_pylist() == [of >= 0 for of in keeper]
    assert table["group"].to_pylist() == [of if of >= 0 else i for i, of in enumerate(keeper)]
    assert table["keeper_uid"].to_pylist() == [uids[of] if of >= 0 else None for of in keeper]
    reasons = [
        None if of < 0 else "duplicate" if copy else "near-duplicate"
        for of, copy in zip(keeper, is_copy, strict=True)
    ]
    assert table["reason"].to_pylist() == reasons and set(reasons) - {None}
    for i, distance in enumerate(table["sq_distance"].to_pylist()):
        is_near = reasons[i] == "near-duplicate"
        assert (distance is not None) == is_near
        assert not is_near or dict(zip(*row(rows, i), strict=True))[keeper[i]] == distance
    left, excluded = read_graph(str(folder), receipts)
    left.validate()
    assert excluded.tolist() == table["dropped"].to_pylist()
    for i in range(len(keeper)):
        expected = [(j, d) for j, d in zip(*row(rows, i), strict=True) if keeper[i] < 0 and keeper[j] < 0]
        assert list(zip(*row(left, i), strict=True)) == expected
    files = tree(folder / "units")
    for workers in (2, 7):
        other = tmp_path / f"dedup-{workers}"
        assert dedup(parts, other, exact, near, workers)[1] == receipts
        assert tree(other / "units") == files


def test_tables_on_ray_equal_those_in_process(graph, tmp_path, ray_executor):
    _, parts, _, cosine = graph
    _, receipts = dedup(parts, tmp_path / "alone", True, cosine, 1)
    assert dedup(parts, tmp_path / "ray", True, cosine, 2, ray_executor, num_cpus=0.5)[1] == receipts


def test_lost_members_change_nothing(graph, tmp_path):
    _, parts, _, cosine = graph
    job, receipts = dedup(parts, tmp_path / "dedup", True, cosine, 4)
    losses = [{call: [call % 4] for call in range(2, 60, 3)}]
    for lost in losses:
        group = LossyGroup(InProcess().group(partial(DedupMember, job), 4, Resources()), lost)
        by_member = run_to_completion(group, "commit", CLOSING, checkpoint_every=1, label="dedup")
        assert [receipt for member in by_member for receipt in member] == receipts
        assert group.calls > 9


def test_decisions_name_the_keeper_and_counts_balance(configure, graph):
    plain, _, _, cosine = graph
    config = configure(dedup={"exact": True, "near": cosine})
    manifests = run(config, InProcess()).manifests
    parts = Parts(config.work_dir, {name: found.units for name, found in manifests.items()})
    read = lambda table, names: pa.concat_tables(t for _, t in parts.read_all(table, names))  # noqa: E731
    decisions = read(DECISIONS, ["uid", "kept", "reason", "suppressed_by", "suppressor"])
    found = read(DUPLICATES, ["dropped", "reason", "keeper", "keeper_uid"])
    dropped = found["dropped"]
    for name, other in (("reason", "reason"), ("suppressed_by", "keeper_uid"), ("suppressor", "keeper")):
        assert decisions[name].filter(dropped).equals(found[other].filter(dropped))
    assert not pc.any(pc.and_(decisions["kept"], dropped)).as_py()
    assert read(RANKS, ["ranked"])["ranked"].to_pylist() == pc.invert(dropped).to_pylist()
    suppressors = set(decisions["suppressor"].filter(pc.invert(dropped)).to_pylist()) - {-1}
    assert suppressors and not any(dropped[position].as_py() for position in suppressors)
    counters, n = manifests["select"].counters, len(parts)
    assert counters["duplicates"] > 20 and counters["near_duplicates"] > 5 and counters["cut_off"] == 0
    assert counters["kept"] == int(0.3 * n) and sum(counters.values()) == n
    assert verify(config.output) == []
    units = {receipt.key for receipt in manifests["dedup"].units}
    assert {name.split("/")[1] for name in tree(f"{config.work_dir}/dedup") if "units" in name} == units
    assert plan_run(plain)["graph"].fingerprint == manifests["graph"].fingerprint


def test_damaged_table_is_rebuilt_by_the_run_that_reads_it(configure, graph):
    _, _, _, cosine = graph
    config = configure(dedup={"exact": True, "near": cosine})
    unit = run(config, InProcess(), stop_after="select").manifests["dedup"].units[2]
    expected = tree(config.work_dir)
    path = Path(config.work_dir, "dedup", "units", unit.key, DUPLICATES)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    shutil.rmtree(Path(config.work_dir, "select"))
    run(config, InProcess(), stop_after="select")
    assert tree(config.work_dir) == expected


def test_explanations_name_the_keeper(configure, graph, capsys):
    _, _, _, cosine = graph
    config = configure(dedup={"exact": True, "near": cosine}, report={"gallery": 4})
    run(config, InProcess(), stop_after="select")
    finished = open_run(config.work_dir)
    table = pa.concat_tables(
        t for _, t in finished.parts.read_all(DUPLICATES, ["reason", "keeper", "sq_distance"])
    )
    rows = table.to_pylist()
    uids = finished.parts.column(SAMPLES, "uid").to_pylist()
    ranking = read_ranking(finished)
    for reason in ("duplicate", "near-duplicate"):
        position = next(i for i, row in enumerate(rows) if row["reason"] == reason)
        keeper = rows[position]["keeper"]
        explanation = explain(finished, position, ranking)
        assert explanation.keeper == keeper and explanation.rank is None
        expected = f"dropped: {reason} of {uids[keeper]}"
        if reason == "near-duplicate":
            expected += f", cosine {1 - rows[position]['sq_distance'] / 2:.3f}"
        assert explanation.outcome == expected
        print_explanations(finished, [uids[position]])
        printed = capsys.readouterr().out
        assert expected in printed and f"rank      none; {uids[keeper]} stays in its place" in printed
        kept = explain(finished, keeper, ranking)
        members = [i for i, row in enumerate(rows) if row["keeper"] == keeper]
        assert kept.keeper is None
        assert kept.duplicates == tuple((i, uids[i], rows[i]["reason"]) for i in members)
        print_explanations(finished, [uids[keeper]])
        assert f"dropped   for it: {uids[members[0]]} (" in capsys.readouterr().out
    assert Explorer(finished).explain(str(position), {})["keeper"] == keeper
    assert Explorer(finished).describe_run({})["reasons"]["near-duplicate"] > 5


def test_report_and_summary_count_duplicates(configure, graph):
    _, _, _, cosine = graph
    config = configure(dedup={"exact": True, "near": cosine})
    result = run(config, InProcess())
    record = run_record(config, result.pool, result.manifests, {})
    counters = result.manifests["select"].counters
    rows = dict(summary_rows(record, None))
    assert rows["  exact copies"] == f"{counters['duplicates']:,} dropped"
    assert rows["  near-duplicates"] == f"{counters['near_duplicates']:,} dropped"
    data = collect(record, ReportParams(gallery=4))
    dropped = counters["duplicates"] + counters["near_duplicates"]
    assert [(step.label, step.count) for step in data.flow][-3:-1] == [
        ("Without duplicates", 128 - dropped),
        ("Kept", 38),
    ]
    assert {reason.reason: reason.count for reason in data.reasons if reason.stage == "dedup"} == {
        "duplicate": counters["duplicates"],
        "near-duplicate": counters["near_duplicates"],
    }
    assert "near-duplicate" in render(data)
    found = data.duplicates
    assert found is not None and found.by_dedup and found.samples - found.groups == dropped
    assert all(group.size >= len(group.cards) > 1 for group in found.largest)


def test_sweep_ranks_the_pool_without_duplicates(configure, graph):
    _, _, _, cosine = graph
    config = configure(dedup={"exact": True, "near": cosine})
    run(config, InProcess(), stop_after="select")
    outcomes = run_sweep(config, SweepGrid(fractions=(0.3,)), use_ray=False).outcomes
    overlap = {outcome.setting.method: outcome.overlap for outcome in outcomes}
    assert overlap["d2"] == 1.0


def test_runs_without_it_keep_their_fingerprints(configure):
    plain = plan_run(configure())
    assert "dedup" not in plan_run(configure(dedup={"exact": False})).artifacts
    near = plan_run(configure(dedup={"near": 0.95}))
    assert list(near.artifacts)[:3] == ["embed", "graph", "dedup"]
    assert near["graph"].fingerprint == plain["graph"].fingerprint
    assert plain["rank"].inputs.keys() == {"graph"} and near["rank"].inputs.keys() == {"graph", "dedup"}
    other = plan_run(configure(dedup={"near": 0.9}))
    assert other["rank"].fingerprint != near["rank"].fingerprint
