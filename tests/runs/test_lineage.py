"""Which run a run continues."""

from dataclasses import replace

import pytest

from d2prune.cli.main import main
from d2prune.parts import files
from d2prune.runs import pruning
from d2prune.runs.entries import RunEntry
from d2prune.runs.lineage import choose_continued, describe_continued
from d2prune.store import artifacts
from d2prune.store.artifacts import FileRecord, Manifest, Receipt
from tests.table_nights import Nights
from tests.tables import make_rows


def make_run(work, number, shards, root="out", fraction=0.3):
    """Commit the manifests of a run, and return them with its entry; a shard is NAME and a version."""
    record = (FileRecord(files.SAMPLES, 1, 1, "x"),)
    units = tuple(
        Receipt(artifacts.unit_key(name, version), record, {}, {"source": {"size": 1, "version": version}})
        for name, version in (shard.split(":") for shard in shards.split())
    )
    pool = artifacts.fingerprint("embed", [unit.key for unit in units])
    manifests = {"embed": Manifest("embed", pool, {}, {}, units, {})}
    for stage in ("graph", "rank", "select"):
        identity = artifacts.fingerprint(stage, pool, fraction)
        params = {"fraction": fraction} if stage == "select" else {}
        manifests[stage] = Manifest(stage, identity, params, {}, (), {})
    for stage, manifest in manifests.items():
        artifacts.commit_manifest(f"{work}/{stage}", manifest)
    run_id = f"{number:016x}"
    found = {stage: manifest.fingerprint for stage, manifest in manifests.items()}
    return RunEntry(run_id, f"/{root}/{run_id}", True, found, "", 1, 1, 1), manifests


# Earlier runs, oldest first -> the number of the one that a run of shards a, b and c continues.
CASES = {
    "none": ([], None),
    "the newest": (["a:1 b:1", "a:1 b:1 d:1"], 1),
    "a replaced shard": (["a:2"], 0),
    "not the same pool": (["a:1 b:1", "a:1 b:1 c:1"], 0),
    "nothing in common": (["x:1 y:1"], None),
    "not what shares nothing": (["a:1 b:1", "x:1 y:1"], 0),
    "its own root": (["a:1 b:1", ("a:1 b:1 d:1", {"root": "elsewhere"})], 0),
    "another root": ([("a:1 b:1", {"root": "elsewhere"})], 0),
    "another root with other files": ([("a:2 b:2", {"root": "elsewhere"})], None),
    "not what was tried out": (["a:1 b:1", ("a:1 b:1", {"fraction": 0.5})], 0),
    "other settings if there is no other": (["a:1", ("a:1 b:1", {"fraction": 0.5})], 1),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_continues(tmp_path, case):
    earlier, expected = CASES[case]
    entries = []
    for number, run in enumerate(earlier):
        shards, settings = (run, {}) if isinstance(run, str) else run
        entries.insert(0, make_run(tmp_path, number, shards, **settings)[0])
    own, manifests = make_run(tmp_path, 99, "a:1 b:1 c:1")
    found = choose_continued(str(tmp_path), entries, own.run_id, own.output, manifests)
    assert found == ("" if expected is None else f"{expected:016x}")


@pytest.mark.parametrize(
    ("chain", "expected"), [([99], None), ([99, 0], None), ([50, 0], 1), ([None, 99], 0), ([1, 0], 1)]
)
def test_a_run_that_was_pruned_continues_none_of_those_that_grew_from_it(tmp_path, chain, expected):
    # Runs, oldest first, and what each continues: 99 is the new one, 50 was pruned.
    entries = []
    for number, continues in enumerate(chain):
        entry, _ = make_run(tmp_path, number, f"a:1 {'cd'[number]}:1")
        entries.insert(0, replace(entry, continues="" if continues is None else f"{continues:016x}"))
    own, manifests = make_run(tmp_path, 99, "a:1 b:1")
    found = choose_continued(str(tmp_path), entries, own.run_id, own.output, manifests)
    assert found == ("" if expected is None else f"{expected:016x}")


def test_runs_lists_which_run_continues_which(tmp_path, capsys):
    nights = Nights(tmp_path)
    shards = {name: make_rows(30, seed) for seed, name in enumerate("ab")}
    first, _ = nights.run(shards)
    second, _ = nights.run({"b": shards["b"], "c": make_rows(20, 5)}, select={"fraction": 0.5})
    assert main(["runs", f"{tmp_path}/work"]) == 0
    _, newest, continued, oldest = capsys.readouterr().out.splitlines()
    assert newest.startswith(second.run_id) and oldest.startswith(first.run_id)
    changed = "1 shard new, 1 removed, +20 and -30 rows of these shards; select.fraction: 0.3 -> 0.5"
    assert continued == f"  continues {first.run_id}: {changed}"
    pruning.prune(f"{tmp_path}/work", 1)
    assert main(["runs", f"{tmp_path}/work"]) == 0
    assert f"  continues {first.run_id}, which was pruned" in capsys.readouterr().out.splitlines()
    again, _ = nights.run(shards)
    assert again.run_id == first.run_id and again.earlier is None


def test_each_pool_is_read_once_and_of_other_artifacts_the_parameters(tmp_path, monkeypatch):
    entries = []
    for number in range(4):
        shards, fraction = ("a:1", "a:1 b:1")[number // 2], (0.3, 0.5)[number % 2]
        entry, manifests = make_run(tmp_path, number, shards, fraction=fraction)
        entries.insert(0, replace(entry, continues="" if number < 2 else f"{number - 2:016x}"))
    read, units = [], []
    load_head, load_manifest = artifacts.load_head, artifacts.load_manifest
    monkeypatch.setattr(artifacts, "load_head", lambda url: read.append(url) or load_head(url))
    monkeypatch.setattr(artifacts, "load_manifest", lambda url: units.append(url) or load_manifest(url))
    lines = list(describe_continued(str(tmp_path), entries))
    assert [line.partition(":")[0] for line in lines] == [f"continues {n:016x}" for n in (1, 0)] + ["", ""]
    assert len(units) == 2 and len(read) == len(set(read)) == 2 * 2 * 3
    assert all("/embed/" in url for url in units)
    read.clear(), units.clear()
    own, manifests = make_run(tmp_path, 9, "a:1 c:1")
    # Of the newest pool, the run with the same fraction.
    assert choose_continued(str(tmp_path), entries, own.run_id, own.output, manifests) == f"{2:016x}"
    assert len(units) == 1 and len(read) == len(set(read))
