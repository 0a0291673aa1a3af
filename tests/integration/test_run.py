"""Complete runs: the same bytes everywhere, nothing done twice, one ranking for every fraction."""

import json
import logging
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from d2prune import store
from d2prune.demo import s3_server
from d2prune.execution import InProcess
from d2prune.graph.params import Layout
from d2prune.output import subset
from d2prune.runs.driver import run
from d2prune.store import artifacts
from d2prune.verify.folder import verify
from tests.pools import tree
from tests.tables import make_rows, write_datacomp


def test_one_process_and_two_workers_on_ray_write_the_same_bytes(configure, tmp_path, ray_executor):
    here = configure(work_dir=str(tmp_path / "w1"), output=str(tmp_path / "o1"))
    there = configure(work_dir=str(tmp_path / "w2"), output=str(tmp_path / "o2"), ray__workers=2)
    result = run(here, InProcess())
    run(there, ray_executor)
    assert tree(tmp_path / "o1") == tree(tmp_path / "o2")
    assert result.manifests["embed"].counters == {"embedded": 160, "read": 160, "rejected": 0}
    assert result.manifests["select"].counters["kept"] == 48
    assert len(list(Path(here.output).glob("*.tar"))) == 5
    assert verify(here.output, full=True) == []


def test_one_process_and_two_workers_on_ray_import_the_same_bytes_from_tables(
    configure, tmp_path, ray_executor, monkeypatch
):
    """Only the embed stage differs from tars; the other stages on Ray are tested above."""
    monkeypatch.setattr("d2prune.inputs.pool.TABLE_PART_BYTES", 4000)
    pool = str(write_datacomp(tmp_path / "meta", [make_rows(60, 1), make_rows(30, 2)]))
    here = configure(input=pool, embed={}, work_dir=str(tmp_path / "w1"))
    there = configure(input=pool, embed={}, work_dir=str(tmp_path / "w2"), ray__workers=2)
    run(here, InProcess(), stop_after="embed")
    result = run(there, ray_executor, stop_after="embed")
    assert len(result.manifests["embed"].units) > 2
    assert tree(tmp_path / "w1" / "embed") == tree(tmp_path / "w2" / "embed")


def test_sharded_graph_gives_the_same_bytes(configure, tmp_path, monkeypatch):
    lists = {"graph__nlist": 6, "graph__nprobe": 3}
    run(configure(work_dir=str(tmp_path / "w1"), output=str(tmp_path / "o1"), **lists), InProcess())
    monkeypatch.setattr("d2prune.graph.stage.Layout", partial(Layout, whole_below=1, partitions=3))
    run(
        configure(work_dir=str(tmp_path / "w2"), output=str(tmp_path / "o2"), ray__workers=2, **lists),
        InProcess(),
    )
    assert tree(tmp_path / "o1") == tree(tmp_path / "o2")
    assert list(Path(tmp_path, "w1", "graph").glob("units/whole-*"))
    assert list(Path(tmp_path, "w2", "graph").glob("units/quantiser-*"))
    one, other = (next(Path(tmp_path, folder, "graph").glob("*/manifest.json")) for folder in ("w1", "w2"))
    assert json.loads(one.read_text())["units"] == json.loads(other.read_text())["units"]


def test_second_run_skips_every_stage(configure, caplog):
    config = configure()
    caplog.set_level(logging.INFO, "d2prune")
    run(config, InProcess())
    before = tree(config.work_dir) | tree(config.output)
    caplog.clear()
    result = run(config, InProcess())
    for stage in ("embed", "graph", "rank", "select", "write"):
        assert f"{stage}: already complete, skipped" in caplog.messages
    assert tree(config.work_dir) | tree(config.output) == before
    assert set(result.seconds) <= {"report"}


def test_another_fraction_reuses_the_ranking_and_is_nested(configure, caplog, tmp_path):
    caplog.set_level(logging.INFO, "d2prune")
    run(configure(), InProcess())
    caplog.clear()
    larger = configure(select__fraction=0.5, output=str(tmp_path / "larger"))
    result = run(larger, InProcess())
    for stage in ("embed", "graph", "rank"):
        assert f"{stage}: already complete, skipped" in caplog.messages
    assert "select: fraction: 0.3 -> 0.5" in caplog.messages
    assert set(result.seconds) == {"select", "write", "report"}
    small, large = (
        subset.read(str(tmp_path / "output" / "subset.npy")),
        subset.read(str(tmp_path / "larger/subset.npy")),
    )
    assert (len(small), len(large)) == (48, 80)
    assert np.isin(small, large).all()


def test_another_k_rebuilds_only_the_graph_and_what_follows(configure, caplog):
    caplog.set_level(logging.INFO, "d2prune")
    run(configure(), InProcess(), stop_after="rank")
    caplog.clear()
    result = run(configure(graph__n_neighbors=6), InProcess(), stop_after="rank")
    assert "embed: already complete, skipped" in caplog.messages
    assert "graph: n_neighbors: 4 -> 6" in caplog.messages
    assert set(result.seconds) == {"graph", "rank"}


def test_grown_pool_embeds_only_the_new_shard(configure, pool, caplog):
    caplog.set_level(logging.INFO, "d2prune")
    shards = [str(path) for path in sorted(pool.glob("*.tar"))]
    run(configure(input=shards[:3]), InProcess(), stop_after="embed")
    caplog.clear()
    run(configure(input=shards), InProcess(), stop_after="embed")
    assert "embed: 3 of 4 units already complete" in caplog.messages


def test_lowest_scores_are_dropped_before_the_graph(configure):
    config = configure(select__drop_score="clip_score", select__drop_fraction=0.25)
    result = run(config, InProcess(), stop_after="select")
    assert result.manifests["graph"].counters["cut_off"] == 40
    assert result.manifests["select"].counters == {"below_budget": 72, "cut_off": 40, "kept": 48}


def test_groups_keep_their_share_with_difficulty_from_a_json_field(configure):
    config = configure(
        embed__fields={"colour": "text", "beauty": "number"},
        score={"difficulty": "beauty"},
        select__groups="colour",
    )
    result = run(config, InProcess())
    embed = [
        artifacts.read_table(f"{config.work_dir}/embed", unit, "samples.parquet")
        for unit in result.manifests["embed"].units
    ]
    decisions = [
        artifacts.read_table(f"{config.work_dir}/select", unit, "decisions.parquet")
        for unit in result.manifests["select"].units
    ]
    samples, decided = pa.concat_tables(embed), pa.concat_tables(decisions)
    lowest = min(samples["beauty"].to_pylist())
    np.testing.assert_allclose(
        decided["difficulty"].to_numpy(), samples["beauty"].to_numpy() - lowest, rtol=1e-6
    )
    colours, kept = np.array(samples["colour"].to_pylist()), decided["kept"].to_numpy()
    scores = decided["selection_fixed"].to_numpy()
    names, sizes = np.unique(colours, return_counts=True)
    assert kept.sum() == 48 and len(names) == 4
    for name, size in zip(names, sizes, strict=True):
        share = kept[colours == name].sum()
        assert abs(share - 0.3 * size) < 1
        order = np.argsort(-scores[colours == name], kind="stable")
        assert set(np.flatnonzero(kept[colours == name])) == set(order[:share])


def test_from_s3_to_s3(configure, pool, tmp_path):
    local = configure()
    run(local, InProcess())
    with s3_server.serve(tmp_path / "s3") as server, s3_server.environment(server):
        for bucket in ("pool", "scratch", "filtered"):
            server.make_bucket(bucket)
        for path in pool.glob("*.tar"):
            store.write_bytes(f"s3://pool/{path.name}", path.read_bytes())
        remote = configure(
            input="s3://pool/{00000000..00000003}.tar",
            work_dir="s3://scratch/run",
            output="s3://filtered/run",
        )
        run(remote, InProcess())
        assert verify(remote.output, full=True) == []
    mine, theirs = tree(local.output), tree(server.folder / "filtered" / "run")
    assert mine.keys() == theirs.keys()
    for name in mine:
        if name.endswith((".tar", ".npy", "_stats.json", "sizes.json")):
            assert mine[name] == theirs[name], name
