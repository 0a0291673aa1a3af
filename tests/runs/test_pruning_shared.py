"""Pruning deletes the shared tars that no output lists any more, and no other."""

import json
import shutil

import pytest

from d2prune.output import claim
from d2prune.runs import history, pruning
from d2prune.verify.folder import Depth, verify
from tests.output.pools import plain_pool
from tests.pools import tree
from tests.runs.test_pruning import interrupt_at
from tests.write.nights import Nights

DEEP = Depth(tars=None, samples=None, loader=False)
POOL = plain_pool(3, 4)
KEPT = [
    [[True] * 4, [True] * 4, [False] * 4],
    [[True, True, True, False], [True] * 4, [True] * 4],
    [[False] * 4, [True] * 4, [True] * 4],
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A root with three nights; tests copy it back after they have changed it."""
    nights = Nights(tmp_path_factory.mktemp("nights") / "root", tmp_path_factory.mktemp("pool"))
    for kept in KEPT:
        nights.run(POOL, kept)
    shutil.copytree(nights.root, nights.root.with_name("copy"))
    return nights


@pytest.fixture
def nights(finished):
    shutil.rmtree(finished.root)
    shutil.copytree(finished.root.with_name("copy"), finished.root)
    return finished


def listed(nights, *numbers):
    return {file.name for i in numbers for file in nights.manifests[i].tars}


def present(nights):
    return {path.name for path in nights.shared.glob("*.tar")}


def output_of(nights, number):
    return nights.root / "out" / nights.manifests[number].identity[:16]


@pytest.mark.parametrize("keep", [1, 2])
def test_tars_that_a_kept_run_lists_stay(nights, keep):
    work = str(nights.root / "work")
    assert present(nights) == listed(nights, 0, 1, 2)
    assert listed(nights, 2) & listed(nights, 0) - listed(nights, 1) == set()
    assert pruning.prune(work, keep).remarks == ()
    assert present(nights) == listed(nights, *range(3 - keep, 3))
    for number in range(3 - keep, 3):
        assert verify(str(output_of(nights, number)), depth=DEEP) == []
    latest = json.loads((nights.root / "out" / "latest.json").read_text())
    assert {f"shards/{name}" for name in listed(nights, 2)} == set(latest["shards"])
    # The next night starts from what is left.
    after = Nights(nights.root, nights.pool)
    after.run(POOL, [[False] * 4, [True] * 4, [True, True, True, False]])
    assert after.manifests[-1].counts["reused_shards"] == 1


def test_interrupted_pruning_of_tars_resumes(nights, monkeypatch):
    work = str(nights.root / "work")
    assert pruning.prune(work, 1).remarks == ()
    pruned = tree(nights.root)
    for step in range(1, 1000, 14):
        shutil.rmtree(nights.root)
        shutil.copytree(nights.root.with_name("copy"), nights.root)
        if not interrupt_at(monkeypatch, step, lambda: pruning.prune(work, 1)):
            break
        assert verify(str(output_of(nights, 2)), depth=DEEP) == []
        assert pruning.prune(work, 1).remarks == ()
        assert tree(nights.root) == pruned
    assert step > 20


def test_tars_of_another_work_dir_stay(nights):
    """It lists them, too, and they may be all that it has in common with this one."""
    other = Nights(nights.root, nights.pool, work="other")
    other.run(POOL, KEPT[0])
    assert other.manifests[-1].identity == nights.manifests[0].identity
    other.run(POOL, [[True] * 4, [False] * 4, [False] * 4])
    assert listed(other, -1) < listed(nights, 0)
    nights.run(POOL, [[False] * 4, [False] * 4, [True] * 4])
    pruning.prune(str(nights.root / "work"), 1)
    assert present(nights) == listed(nights, 0, -1)
    pruning.prune(str(nights.root / "other"), 1)
    assert present(nights) == listed(nights, -1) | listed(other, -1)
    assert verify(str(output_of(other, -1)), depth=DEEP) == []


def test_nothing_is_deleted_while_it_is_unknown_who_needs_it(nights):
    work = str(nights.root / "work")
    everything = present(nights)
    (output_of(nights, 2) / "manifest.json").write_text("{}")
    remarks = pruning.prune(work, 1).remarks
    assert len(remarks) == 2 and all("shared tars that it lists are unknown" in line for line in remarks)
    assert present(nights) == everything
    assert verify(str(output_of(nights, 0)), depth=DEEP) == []


def test_nothing_is_deleted_while_a_run_writes(nights):
    work, everything = str(nights.root / "work"), present(nights)
    with claim.hold_shared(str(output_of(nights, 0))):
        remarks = pruning.prune(work, 1).remarks
    assert len(remarks) == 2 and all(
        "in progress" in line or "folder of shared tars" in line for line in remarks
    )
    assert present(nights) == everything
    assert len(history.read_runs(work)) == 1
