"""A graph that is built from the one before equals a full build with the same quantiser, byte for byte."""

import itertools
import logging
import os
import shutil
import tempfile
import weakref
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.errors import InfrastructureError, UserError
from d2prune.graph.build import other_unit_keys
from d2prune.graph.latest import trained_key
from d2prune.graph.params import Layout
from d2prune.graph.previous import match_parts
from d2prune.knn import in_memory
from d2prune.stage import exchange
from tests.graph.nights import IN_STEPS, build_full, build_night, graph_files, random_rows
from tests.graph.pools import PARAMS
from tests.graph.test_build import Failing
from tests.knn.rows import always_project

IN_MEMORY = Layout()
SMALL = replace(PARAMS, nlist=12, nprobe=3)
ADDED, REMOVED, REPLACED = (1, 0, 0), (0, 1, 0), (0, 0, 1)


@pytest.fixture(autouse=True, scope="module")
def _no_sync():
    """Leave out what only matters in a power cut, and takes nearly all of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


def first_pool(rng, n_shards=5):
    centres = rng.normal(size=(8, 6))
    names = [f"{2 * number:03d}" for number in range(n_shards)]
    return centres, {name: random_rows(rng, centres, int(rng.integers(8, 40))) for name in names}


def change(rng, centres, shards, additions, removals, replacements):
    """Add shards anywhere in the order, remove some, replace the content of some."""
    shards = dict(shards)
    pool = np.concatenate(list(shards.values()))
    names = rng.permutation(list(shards)).tolist()
    for name in names[:removals]:
        if len(shards) > 1:
            del shards[name]
    for name in names[removals : removals + replacements]:
        shards[name] = random_rows(rng, centres, int(rng.integers(0, 20)), pool)
    for _ in range(additions):
        shards[f"{rng.integers(0, 1000):03d}x"] = random_rows(rng, centres, int(rng.integers(1, 20)), pool)
    return dict(sorted(shards.items()))


def check_nights(work, rng, nights, params=SMALL, layout=IN_STEPS, full=IN_MEMORY):
    """Build nights one from the other, and each in full; compare the bytes of the graphs."""
    centres, shards = first_pool(rng)
    latest = build_night(f"{work}/chain", shards, params, layout=layout)
    trained = latest.facts["quantiser"]
    for number, counts in enumerate(nights):
        shards = change(rng, centres, shards, *counts)
        latest = build_night(f"{work}/chain", shards, params, trained, latest.fingerprint, layout)
        expected = build_full(f"{work}/{number}", shards, params, f"{work}/chain", trained, full)
        assert (latest.units, latest.facts) == (expected.units, expected.facts)
        if full != IN_MEMORY:
            # What the next night starts from is the same, too.
            assert graph_files(f"{work}/chain", latest) == graph_files(f"{work}/{number}", expected)


nights = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=3)


@settings(max_examples=4)
@given(seed=st.integers(0, 2**16), nights=nights, partitions=st.integers(1, 4))
def test_any_sequence_of_changes_gives_the_graph_of_a_full_build(seed, nights, partitions):
    with tempfile.TemporaryDirectory() as work:
        check_nights(
            work, np.random.default_rng(seed), nights, layout=replace(IN_STEPS, partitions=partitions)
        )


def test_rows_are_compared_by_their_projections(tmp_path, monkeypatch):
    always_project(monkeypatch)
    check_nights(tmp_path, np.random.default_rng(0), [(2, 0, 0), (1, 1, 1)], replace(SMALL, n_neighbors=1))


@pytest.mark.parametrize("changes", [{"nlist": 1, "nprobe": 1}, {"nlist": 9, "nprobe": 9, "n_neighbors": 30}])
def test_extreme_numbers_of_lists_and_neighbours(tmp_path, changes):
    check_nights(tmp_path, np.random.default_rng(1), [ADDED, REMOVED], replace(SMALL, **changes))


def test_a_shard_that_moves_in_the_order_is_removed_and_added(tmp_path, caplog):
    _, shards = first_pool(np.random.default_rng(2))
    latest = build_night(tmp_path / "chain", shards, SMALL)
    trained = latest.facts["quantiser"]
    renamed = {name: rows for name, rows in shards.items() if name != "000"} | {"999": shards["000"]}
    with caplog.at_level(logging.INFO):
        latest = build_night(tmp_path / "chain", renamed, SMALL, trained, latest.fingerprint)
    assert "1 of 5 parts are new" in caplog.text
    full = build_full(tmp_path / "full", renamed, SMALL, tmp_path / "chain", trained, IN_MEMORY)
    assert latest.units == full.units


@pytest.fixture(scope="module")
def second_night(tmp_path_factory):
    """A folder with the graph of one night, what builds the next, and that graph."""
    work = tmp_path_factory.mktemp("nights")
    rng = np.random.default_rng(3)
    centres, shards = first_pool(rng)
    first = build_night(work / "chain", shards, SMALL)
    trained = first.facts["quantiser"]
    shards = change(rng, centres, shards, 1, 1, 1)
    full = build_full(work / "full", shards, SMALL, work / "chain", trained, IN_MEMORY)
    return work / "chain", (shards, SMALL, trained, first.fingerprint), full


@pytest.mark.parametrize("step", ["arrive", "bereft", "sample", "meet", "settle", "checked", "join"])
def test_an_increment_that_is_killed_resumes(tmp_path, second_night, step):
    work, night, full = second_night
    shutil.copytree(work, tmp_path / "chain")
    killed, resumed = Failing(step, 0), Failing("none", -1)
    with pytest.raises(InfrastructureError, match="killed"):
        build_night(tmp_path / "chain", *night, executor=killed)
    latest = build_night(tmp_path / "chain", *night, executor=resumed)
    assert not set(killed.complete) & set(resumed.complete)
    assert latest.units == full.units


def test_a_killed_increment_that_resumes_from_another_graph_mixes_up_no_parts(tmp_path):
    rng = np.random.default_rng(9)
    centres, shards = first_pool(rng)
    first = build_night(tmp_path / "chain", shards, SMALL)
    trained = first.facts["quantiser"]
    with_x = shards | {"100": random_rows(rng, centres, 15)}
    with_both = with_x | {"101": random_rows(rng, centres, 15)}
    with pytest.raises(InfrastructureError, match="killed"):
        build_night(
            tmp_path / "chain", with_both, SMALL, trained, first.fingerprint, executor=Failing("sample", 0)
        )
    second = build_night(tmp_path / "chain", with_x, SMALL, trained, first.fingerprint)
    latest = build_night(tmp_path / "chain", with_both, SMALL, trained, second.fingerprint)
    full = build_full(tmp_path / "full", with_both, SMALL, tmp_path / "chain", trained, IN_MEMORY)
    assert (latest.units, latest.facts) == (full.units, full.facts)


def test_a_group_of_more_copies_than_slots(tmp_path):
    rng = np.random.default_rng(10)
    _, shards = first_pool(rng)
    params = replace(SMALL, n_neighbors=20)
    first = build_night(tmp_path / "chain", shards, params)
    trained = first.facts["quantiser"]
    copies = np.repeat((shards["000"][:1] * 1.01).astype(np.float16), 30, axis=0)
    shards = shards | {"001": copies}
    latest = build_night(tmp_path / "chain", shards, params, trained, first.fingerprint)
    full = build_full(tmp_path / "full", shards, params, tmp_path / "chain", trained, IN_MEMORY)
    assert (latest.units, latest.facts) == (full.units, full.facts)


def test_candidates_are_merged_as_they_are_read(tmp_path, second_night, monkeypatch):
    work, night, full = second_night
    shutil.copytree(work, tmp_path / "chain")
    alive, counts = weakref.WeakValueDictionary(), []

    def read_one_by_one(urls, dtype, destination):
        for number, url in enumerate(urls):
            alive[number] = records = exchange.read(url, dtype, destination)
            yield records
            del records
            # Step `join` needs all edges of a share at once.
            counts.append(len(alive) if "query" in dtype.names else 0)

    monkeypatch.setattr(exchange, "read_all", read_one_by_one)
    assert build_night(tmp_path / "chain", *night).units == full.units
    assert max(counts) == 1


@pytest.mark.parametrize(
    "lost", ["graph/*/manifest.json", "embed/*/manifest.json", "graph/units/state-*2-*/receipt.json"]
)
def test_a_graph_that_lost_something_is_no_start(tmp_path, second_night, caplog, lost):
    work, night, full = second_night
    shutil.copytree(work, tmp_path / "chain")
    for path in (tmp_path / "chain").glob(lost):
        path.unlink()
    with caplog.at_level(logging.INFO):
        latest = build_night(tmp_path / "chain", *night)
    assert f"built in full with quantiser {night[2]}: the " in caplog.text
    assert latest.units == full.units


def test_a_graph_built_in_memory_is_no_start(tmp_path, caplog):
    rng = np.random.default_rng(5)
    centres, shards = first_pool(rng)
    latest = build_night(tmp_path, shards, SMALL, layout=Layout())
    trained = latest.facts["quantiser"]
    shards = change(rng, centres, shards, *ADDED)
    with caplog.at_level(logging.INFO):
        latest = build_night(tmp_path, shards, SMALL, trained, latest.fingerprint)
        assert "kept no candidates, because it was built in memory or with a cut-off" in caplog.text
        caplog.clear()
        build_night(tmp_path, change(rng, centres, shards, *ADDED), SMALL, trained, latest.fingerprint)
        assert f"from graph {latest.fingerprint}" in caplog.text


@pytest.mark.parametrize(("kept", "n_added"), [(5, 20), (1, 0)])
def test_a_pool_of_another_size_trains_another_quantiser(tmp_path, caplog, kept, n_added):
    rng = np.random.default_rng(6)
    centres, shards = first_pool(rng)
    latest = build_night(tmp_path / "chain", shards, SMALL)
    trained = latest.facts["quantiser"]
    shards = dict(list(shards.items())[:kept])
    shards |= {f"9{number:02d}": random_rows(rng, centres, 30) for number in range(n_added)}
    latest = build_night(tmp_path / "chain", shards, SMALL, trained, latest.fingerprint)
    assert f"quantiser {trained} is not used: found" in caplog.text
    fresh = build_night(tmp_path / "fresh", shards, SMALL)
    assert latest.facts["quantiser"] == fresh.facts["quantiser"] != trained
    assert latest.units == fresh.units


@pytest.mark.parametrize(
    ("layout", "starts"),
    [(IN_MEMORY, False), (IN_STEPS, False), (IN_STEPS, True)],
    ids=["memory", "steps", "increment"],
)
def test_a_quantiser_that_misses_the_target_is_replaced(tmp_path, monkeypatch, caplog, layout, starts):
    monkeypatch.setattr(in_memory, "EXACT_BELOW", 100)
    rng = np.random.default_rng(7)
    rows = rng.normal(size=(600, 24)).astype(np.float16)
    shards = {f"{start:03d}": rows[start : start + 150] for start in range(0, 600, 150)}
    modest, high = (replace(SMALL, nlist=100, nprobe=None, target_recall=target) for target in (0.3, 0.9))
    first = build_night(tmp_path / "chain", shards, modest, layout=layout)
    trained = first.facts["quantiser"]
    shards = dict(sorted({**shards, "001": rng.normal(size=(20, 24)).astype(np.float16)}.items()))
    previous = first.fingerprint if starts else None
    latest = build_night(tmp_path / "chain", shards, high, trained, previous, layout)
    assert f"quantiser {trained} is not used: found recall" in caplog.text
    fresh = build_night(tmp_path / "fresh", shards, high, layout=layout)
    assert latest.units == fresh.units
    assert latest.facts["quantiser"] == fresh.facts["quantiser"] != trained
    # Nothing is left of the attempt.
    left = {path.parent.name for path in (tmp_path / "chain" / "graph").glob("units/*/receipt.json")}
    kept = {key for night in (first, latest) for key in (*other_unit_keys(asdict(night)), *unit_keys(night))}
    assert left <= kept | {trained_key(night.facts["quantiser"]) for night in (first, latest)}


@pytest.mark.parametrize("layout", [IN_MEMORY, IN_STEPS], ids=["memory", "steps"])
def test_a_quantiser_of_other_dimensions_is_refused(tmp_path, layout):
    rng = np.random.default_rng(11)
    _, shards = first_pool(rng)
    trained = build_night(tmp_path, shards, SMALL).facts["quantiser"]
    wider = {name: rng.normal(size=(len(rows), 7)).astype(np.float16) for name, rows in shards.items()}
    with pytest.raises(UserError, match=r"^graph\.quantiser: found lists of 6 dimensions; expected 7"):
        build_night(tmp_path, wider, SMALL, trained, layout=layout)


def test_a_cut_off_is_built_in_full(tmp_path, caplog):
    rng = np.random.default_rng(8)
    centres, shards = first_pool(rng)
    params = replace(SMALL, drop_score="row", drop_fraction=0.2)
    latest = build_night(tmp_path / "chain", shards, params)
    trained = latest.facts["quantiser"]
    shards = change(rng, centres, shards, *ADDED)
    with caplog.at_level(logging.INFO):
        latest = build_night(tmp_path / "chain", shards, params, trained, latest.fingerprint)
    assert "built in full with quantiser" in caplog.text
    assert "select.drop_score moves the cut-off" in caplog.text
    full = build_full(tmp_path / "full", shards, params, tmp_path / "chain", trained, IN_MEMORY)
    assert (latest.units, latest.facts) == (full.units, full.facts)


def unit_keys(manifest):
    """Keys of the units that a manifest lists."""
    return [unit.key for unit in manifest.units]


parts = st.lists(st.sampled_from("abcde"), max_size=8)


@settings(max_examples=60)
@given(before=parts, now=parts)
def test_parts_are_matched_in_increasing_order(before, now):
    matches = match_parts(before, now)
    found = [(number, part) for part, number in enumerate(matches) if number >= 0]
    assert all(before[number] == now[part] for number, part in found)
    assert all(one[0] < other[0] for one, other in itertools.pairwise(found))
    if before == now:
        assert matches == list(range(len(now)))
