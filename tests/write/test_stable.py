"""Stable tars: any nights leave exactly the kept samples, and what did not change is not written again."""

import os
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2prune.config.model import RunConfig
from d2prune.errors import BusyError, UserError
from d2prune.output import claim, tar_stream
from d2prune.runs.plan import plan_run
from d2prune.verify.folder import Depth, verify
from d2prune.write.placement import match, name_tars, place, split_at_parts
from tests.output.pools import Made, jpeg, plain_pool, sample, tree, uid_of
from tests.tables import make_rows, write_arrays
from tests.write.nights import Nights, expected

DEEP = Depth(tars=None, samples=None, loader=False)


def ids(numbers, distinct=3):
    return np.array([[7, n, n % distinct, 1] for n in numbers], np.uint64).reshape(-1, 4)


nights = st.lists(st.lists(st.integers(0, 30), max_size=40), min_size=1, max_size=6)


@given(nights, st.integers(1, 9), st.sampled_from([3, 1000]))
def test_any_nights_are_placed(sequence, samples_per_shard, distinct):
    before = []
    for numbers in sequence:
        now = ids(numbers, distinct)
        rows = place(before, now, samples_per_shard)
        assert sorted(np.concatenate([np.zeros(0, int), *rows]).tolist()) == list(range(len(now)))
        assert all(0 < len(tar) <= samples_per_shard for tar in rows)
        assert all(2 * len(tar) >= samples_per_shard for tar in rows[:-1])
        names = list(name_tars(rows, now, False))
        assert len(set(names)) == len(names)
        left = now.tolist()
        for tar, row in zip(before, rows, strict=False):
            # A tar whose samples are all kept, each as often as before, is the same tar.
            content = tar.tolist()
            if 2 * len(tar) >= samples_per_shard and all(left.count(x) >= content.count(x) for x in content):
                assert any(np.array_equal(now[row], tar) for row in rows)
            for x in content:
                left.remove(x) if x in left else None
        again = place([now[row] for row in rows], now, samples_per_shard)
        assert [now[row].tolist() for row in again] == [now[row].tolist() for row in rows]
        before = [now[row] for row in rows]


def test_equal_samples_are_matched_in_turn():
    assert match(ids([5, 1, 5, 5, 2]), ids([5, 3, 5, 1])).tolist() == [0, 3, 2, -1, -1]
    assert match(ids([]), ids([1])).tolist() == []
    assert match(ids([1]), ids([])).tolist() == [-1]


def test_a_tar_is_split_where_its_source_changes():
    starts = np.array([0, 3, 3, 8])
    runs = [
        (part, numbers.tolist()) for part, numbers in split_at_parts(np.array([1, 2, 3, 7, 4, 0]), starts)
    ]
    assert runs == [(0, [1, 2]), (2, [0, 4]), (2, [1]), (0, [0])]


def change(rng, made, counter):
    """Add, remove, replace and rename shards, and replace single samples."""
    made = [list(shard) for shard in made]
    if made and rng.random() < 0.6:
        del made[rng.randrange(len(made))]
    for shard in made:
        if rng.random() < 0.2:
            i = rng.randrange(len(shard))
            shard[i] = sample(shard[i].key, uid=shard[i].uid, number=next(counter), caption="another")
    for _ in range(rng.randrange(3)):
        new = [sample(f"n{next(counter)}", number=next(counter)) for _ in range(rng.randrange(1, 7))]
        made.insert(rng.randrange(len(made) + 1), new)
    if made and rng.random() < 0.3:
        made.append(list(made[0]))  # The same samples once more.
    rng.shuffle(made)
    return made


class Killed(BaseException):
    pass


def interrupted(monkeypatch, rng, work):
    """Run until a random write, which fails; nothing is done after it, as after a kill."""
    left = rng.randrange(1, 25)

    def spend(function):
        def call(*arguments, **options):
            nonlocal left
            left -= 1
            if left <= 0:
                raise Killed
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", spend(os.replace))
        patch.setattr(tar_stream.TarStream, "put", spend(tar_stream.TarStream.put))
        try:
            work()
        except Killed:
            return True
    return False


def files_below(nights):
    """Of the outputs and their tars; the records of runs name the root."""
    found = tree(nights.root / "out")
    return {
        name: data for name, data in found.items() if not name.startswith((".d2prune-runs", "latest.json"))
    }


def test_any_nights_end_with_the_kept_samples(tmp_path, monkeypatch):
    """With kills in between, and the same bytes as without."""
    rng, counter = random.Random(1), iter(range(1000, 10**6))
    undisturbed = Nights(tmp_path / "a", tmp_path / "shared")
    killed = Nights(tmp_path / "b", tmp_path / "shared")
    made, reused, kills, before = plain_pool(3, 6), 0, 0, {}
    for _ in range(4):
        fraction = rng.choice([0.3, 0.6, 0.9])
        # Of a sample, the decision is mostly the same every night.
        kept = [
            [int(item.uid[:4], 16) % 100 < 100 * fraction or rng.random() < 0.05 for item in s] for s in made
        ]
        stamps = {path.name: path.stat().st_mtime_ns for path in undisturbed.shared.glob("*")}
        undisturbed.run(made, kept)
        counts, after = undisturbed.manifests[-1].counts, undisturbed.tars()
        assert undisturbed.contents() == expected(made, kept)
        assert counts["written"] == sum(map(sum, kept)) == counts["selected"]
        both = before.keys() & after.keys()
        assert counts["reused_shards"] == len(both)
        assert all(before[name] == after[name] for name in both)
        assert all((undisturbed.shared / name).stat().st_mtime_ns == stamps[name] for name in both)
        reused += len(both)

        kills += interrupted(monkeypatch, rng, lambda made=made, kept=kept: killed.run(made, kept))
        killed.run(made, kept)
        assert files_below(killed) == files_below(undisturbed)
        before, made = after, change(rng, made, counter)
    assert kills and reused
    for manifest in undisturbed.shared.parent.glob("*/manifest.json"):
        assert verify(str(manifest.parent), depth=DEEP) == []


def test_a_night_starts_from_the_one_before(tmp_path, caplog):
    caplog.set_level("INFO")
    made = plain_pool(3, 8)
    kept = [[True] * 8] * 3
    nights = Nights(tmp_path, tmp_path)
    first = nights.run(made, kept)
    assert "all tars are new" in caplog.text
    assert nights.manifests[-1].counts["reused_shards"] == 0
    # The same pool and decisions again are the same output, whatever was written in between.
    nights.run(made, [[True] * 6 + [False] * 2] * 3)
    assert nights.manifests[-1].counts["reused_shards"] == 3
    assert nights.run(made, kept) == first
    # Another size of shards is another set.
    caplog.clear()
    nights.samples_per_shard = 5
    nights.run(made, kept)
    assert "no earlier output with these parameters" in caplog.text


def test_lost_and_damaged_tars_are_written_again(tmp_path, caplog):
    made = plain_pool(3, 8)
    kept = [[True] * 8] * 3
    nights = Nights(tmp_path, tmp_path)
    nights.run(made, kept)
    tars = nights.tars()
    lost, cut = sorted(tars)[:2]
    (nights.shared / lost).unlink()
    (nights.shared / cut).write_bytes(b"cut")
    grown = [*made, [sample("new", number=5)]]
    output = nights.run(grown, [*kept, [True]])
    assert "2 of 6 tars to re-use are missing or damaged and written again" in caplog.text
    assert {name: nights.tars()[name] for name in tars} == tars
    assert nights.manifests[-1].counts["reused_shards"] == 6
    assert verify(str(output), depth=DEEP) == []
    # Of a complete output, too: its manifest comes back with the same bytes.
    manifest = (output / "manifest.json").read_bytes()
    (nights.shared / lost).unlink()
    assert verify(str(output), depth=DEEP) == [
        f"{lost}: missing",
    ]
    assert nights.run(grown, [*kept, [True]]) == output
    assert (output / "manifest.json").read_bytes() == manifest
    assert nights.tars()[lost] == tars[lost]


def test_without_the_record_of_the_last_output_all_tars_are_new(tmp_path, caplog):
    made = plain_pool(2, 8)
    nights = Nights(tmp_path, tmp_path)
    nights.run(made, [[True] * 8] * 2)
    (path,) = (tmp_path / "work" / "write").glob("*/manifest.json")
    path.unlink()
    nights.run(made, [[True] * 8, [False] * 8])
    assert "the record of the last output" in caplog.text
    assert nights.manifests[-1].counts["reused_shards"] == 0
    # Its tars have the samples of a tar that is there.
    assert len(list(nights.shared.glob("*.tar"))) == 4


def test_a_damaged_record_of_a_tar_makes_its_samples_new(tmp_path, caplog):
    made = plain_pool(2, 8)
    nights = Nights(tmp_path, tmp_path)
    nights.run(made, [[True] * 8] * 2)
    path = sorted((tmp_path / "work" / "write" / "units").glob("shard-*/uids.npy"))[0]
    path.write_bytes(bytes(len(path.read_bytes())))
    kept = [[True] * 8, [True] * 7 + [False]]
    nights.run(made, kept)
    assert "the samples of this tar are written to new ones" in caplog.text
    assert nights.contents() == expected(made, kept)


def test_verify_finds_every_fault_of_shared_tars(tmp_path):
    executable = Made(
        "p", uid_of("p"), (("jpg", jpeg(1)), ("pyd", b"x"), ("txt", b"caf\xe9"), ("json", b"{no"))
    )
    made = [[executable, *plain_pool(1, 7)[0]]]
    nights = Nights(tmp_path, tmp_path)
    output = str(nights.run(made, [[True] * 8]))
    assert nights.manifests[-1].counts["executable_set_aside"] == 1
    assert verify(output, depth=DEEP) == []
    for path in nights.shared.iterdir():
        data = path.read_bytes()
        changed = bytearray(data)
        changed[len(data) // 2] ^= 1
        for other in (bytes(changed), data[:-1], None):
            path.unlink() if other is None else path.write_bytes(other)
            assert any(path.name in fault or path.stem in fault for fault in verify(output, depth=DEEP))
            path.write_bytes(data)
    assert verify(output, depth=DEEP) == []
    # Tars of other runs are no fault.
    (nights.shared / "shard-0123456789abcdef.tar").write_bytes(b"x")
    assert verify(output, depth=DEEP) == []


def test_one_process_at_a_time_writes_shared_tars(tmp_path):
    nights = Nights(tmp_path, tmp_path)
    made = plain_pool(1, 4)
    with (
        claim.hold_shared(str(tmp_path / "out" / "x")),
        pytest.raises(BusyError, match="folder of shared tars"),
    ):
        nights.run(made, [[True] * 4])
    nights.run(made, [[True] * 4])
    assert not (nights.shared / ".lease").exists()


def parse(source, output):
    """The configuration of a run with stable tars."""
    values = {"input": str(source), "work_dir": f"{output}-work", "output": str(output)}
    return RunConfig.parse(values | {"select": {"fraction": 0.5}, "write": {"stable": True}}, "test")


def test_stable_tars_need_tars_and_an_output_of_each_run(tmp_path):
    with pytest.raises(UserError, match=r"found true with output .*/out; expected an output that ends in"):
        parse(tmp_path, tmp_path / "out")
    write_arrays(tmp_path / "tables", [make_rows(8)])
    with pytest.raises(UserError, match="found true for tables of embeddings; expected tars, or false"):
        plan_run(parse(tmp_path / "tables", tmp_path / "out" / "{run_id}"))


def test_the_input_is_not_in_the_folder_of_shared_tars(tmp_path):
    Nights(tmp_path, tmp_path).run(plain_pool(1, 4), [[True] * 4])
    with pytest.raises(UserError, match="is in folder of shared tars"):
        plan_run(parse(tmp_path / "out" / "shards", tmp_path / "out" / "{run_id}"))
