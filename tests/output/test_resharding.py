"""Resharding by subset file against a naive loop, and its rules for repeats, shuffling and going on."""

import json
import logging
import tarfile
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2prune.errors import UserError
from d2prune.inputs.sample_id import hashed_uid
from d2prune.output import layout, subset
from d2prune.reshard import reshard as resharding
from d2prune.reshard.reshard import ReshardParams, reshard
from d2prune.verify import folder
from tests.output.pools import Made, jpeg, naive, plain_pool, put_pool, read_tars, sample, tree, uid_of


def subset_file(tmp_path, uids):
    path = tmp_path / "s.npy"
    path.write_bytes(subset.to_bytes(subset.encode(uids)))
    return str(path)


def test_equals_the_naive_loop(tmp_path):
    made = plain_pool()
    kept = [[(i + s) % 3 == 0 for i in range(20)] for s in range(3)]
    put_pool(tmp_path / "pool", made)
    uids = [
        item.uid
        for shard, keep in zip(made, kept, strict=True)
        for item, k in zip(shard, keep, strict=True)
        if k
    ]
    url = subset_file(tmp_path, uids)
    out = tmp_path / "out"
    manifest = reshard(str(tmp_path / "pool"), url, str(out), ReshardParams(7))
    assert read_tars(out) == naive(made, kept, 7)
    assert manifest.counts["written"] == manifest.counts["selected"] == len(uids)
    assert manifest.counts["pool"] == 60 and manifest.counts["missing"] == 0
    assert np.array_equal(np.load(out / "sample_ids.npy"), np.load(out / "subset.npy"))
    assert json.loads((out / "meta.json").read_text())["output_shard_count"] == len(list(out.glob("*.tar")))
    assert folder.verify(str(out), full=True) == []


def test_uids_from_anywhere(tmp_path):
    """No json, a broken one, an upper-case uid: the names a run gives; a sample that has none is passed over."""
    bare = Made("bare", "", (("png", jpeg(1)), ("txt", b"no json")))
    broken = Made("broken", "", (("json", b"{"), ("jpg", jpeg(2)), ("txt", b"broken")))
    upper = Made("upper", "", (("jpg", jpeg(3)), ("json", b'{"uid": "%s"}' % (b"A" * 32))))
    nothing = Made("nothing", "", (("txt", b"neither image nor json"),))
    put_pool(tmp_path / "pool", [[bare, broken, nothing, upper]])
    uids = [hashed_uid(jpeg(1), b"no json"), hashed_uid(jpeg(2), b"broken"), "a" * 32]
    manifest = reshard(str(tmp_path / "pool"), subset_file(tmp_path, uids), str(tmp_path / "out"))
    assert (manifest.counts["written"], manifest.counts["pool"]) == (3, 3)
    assert {name.split("-")[0] for name, _ in read_tars(tmp_path / "out")[0]} == set(uids)


def test_repeats(tmp_path):
    """c entries, k samples: c are written, dealt over the k; an absent uid is counted."""
    one, twin = uid_of("one"), uid_of("twin")
    made = [
        [sample("a", one, 1), sample("b", twin, 2)],
        [sample("c", twin, 3), sample("d", uid_of("other"), 4)],
    ]
    put_pool(tmp_path / "pool", made)
    for twins, expected in [(1, ["b"]), (2, ["b", "c"]), (3, ["b", "b", "c"])]:
        url = subset_file(tmp_path, [one, one, *[twin] * twins, "0" * 32])
        out = tmp_path / f"out{twins}"
        manifest = reshard(str(tmp_path / "pool"), url, str(out))
        (members,) = read_tars(out)
        assert [json.loads(data)["key"] for name, data in members if name.endswith("json")] == [
            "a",
            "a",
            *expected,
        ]
        names = [name for name, _ in members]
        assert len(set(names)) == len(names)
        assert manifest.counts["missing"] == 1 and manifest.counts["written"] == 2 + twins


def test_missing_entries_are_told(tmp_path, caplog):
    put_pool(tmp_path / "pool", plain_pool(1, 2))
    with caplog.at_level(logging.WARNING):
        manifest = reshard(
            str(tmp_path / "pool"), subset_file(tmp_path, ["0" * 32] * 3), str(tmp_path / "out")
        )
    assert "3 of 3 entries" in caplog.text
    assert (manifest.counts["missing"], manifest.counts["shards"]) == (3, 0)


def test_shuffle_is_seeded_and_loses_nothing(tmp_path):
    made = plain_pool()
    put_pool(tmp_path / "pool", made)
    url = subset_file(tmp_path, [item.uid for shard in made for item in shard])
    seeds = {"a": 1, "b": 1, "c": 2, "d": None}
    for name, seed in seeds.items():
        reshard(str(tmp_path / "pool"), url, str(tmp_path / name), ReshardParams(7, seed))
    trees = {name: tree(tmp_path / name) for name in seeds}
    assert trees["a"] == trees["b"]
    assert len({trees[name]["00000000.tar"] for name in "acd"}) == 3
    members = {
        name: Counter(member for tar in read_tars(tmp_path / name) for member in tar) for name in seeds
    }
    assert members["a"] == members["c"] == members["d"]
    assert [len(tar) for tar in read_tars(tmp_path / "a")] == [21] * 8 + [12]
    assert folder.verify(str(tmp_path / "a"), full=True) == []


def test_goes_on_where_it_was(tmp_path, monkeypatch):
    made = plain_pool()
    put_pool(tmp_path / "pool", made)
    url = subset_file(tmp_path, [item.uid for shard in made for item in shard])
    arguments = (str(tmp_path / "pool"), url, str(tmp_path / "out"), ReshardParams(7), str(tmp_path / "work"))
    done = []
    whole = resharding.write_shard

    def dies_at_the_fourth(output, index, pieces, go_on):
        if index == 3:
            raise KeyboardInterrupt
        done.append(index)
        return whole(output, index, pieces, go_on)

    monkeypatch.setattr(resharding, "write_shard", dies_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        reshard(*arguments)
    monkeypatch.setattr(resharding, "write_shard", lambda *a: done.append(a[1]) or whole(*a))
    reshard(*arguments)
    # What else was in hand when it died may have been left.
    assert set(done) == set(range(9)) and len(done) < 9 + resharding.AT_ONCE
    reshard(str(tmp_path / "pool"), url, str(tmp_path / "undisturbed"), ReshardParams(7))
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")
    with pytest.raises(UserError, match="another run's data"):
        reshard(*arguments[:3], ReshardParams(8), str(tmp_path / "work"))


def test_a_cut_tar_gives_what_it_has(tmp_path):
    shards = put_pool(tmp_path / "pool", plain_pool(1, 4))
    with tarfile.open(shards[0].url) as tar:
        cut = tar.getmembers()[10].offset_data + 5
    data = (tmp_path / "pool" / "00000000.tar").read_bytes()[:cut]
    (tmp_path / "pool" / "00000000.tar").write_bytes(data)
    (tmp_path / "pool" / "00000001.tar").write_bytes(b"")
    uids = [item.uid for item in plain_pool(1, 4)[0]]
    manifest = reshard(str(tmp_path / "pool"), subset_file(tmp_path, uids), str(tmp_path / "out"))
    assert (manifest.counts["written"], manifest.counts["missing"]) == (3, 1)


def test_from_and_to_s3(tmp_path, s3):
    bucket = s3.make_bucket("reshard")
    made = plain_pool()
    put_pool(tmp_path / "pool", made, url=f"{bucket}/pool")
    url = subset_file(tmp_path, [item.uid for shard in made for item in shard[::2]])
    reshard(f"{bucket}/pool/{{00000000..00000002}}.tar", url, f"{bucket}/out", ReshardParams(7, 5))
    reshard(str(tmp_path / "pool"), url, str(tmp_path / "out"), ReshardParams(7, 5))
    for index in range(5):
        name = layout.SHARD_FORMAT.format(index)
        assert (s3.folder / "reshard" / "out" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


few = st.integers(0, 5).map(lambda value: value * (2**64 + 1) // 2)


@given(st.lists(few), st.lists(st.lists(few, max_size=6), max_size=4))
def test_selection_equals_dealing_one_by_one(entries, parts):
    texts = [[f"{value:032x}" for value in part] for part in parts]
    wanted = subset.encode([f"{value:032x}" for value in entries])
    wanted = wanted[subset.order(wanted)]
    indexes = []
    for part, uids in enumerate(texts):
        rows = [(uid, str(part), str(i), i, 1) for i, uid in enumerate(uids)]
        columns = {
            name: [row[c] for row in rows] for c, name in enumerate(resharding.shard_index.SCHEMA.names)
        }
        indexes.append(resharding.pa.table(columns, schema=resharding.shard_index.SCHEMA))
    found = resharding.select(wanted, indexes)
    holders = {}
    for part, uids in enumerate(texts):
        for i, uid in enumerate(uids):
            holders.setdefault(uid, []).append((part, i))
    expected = []
    for uid, count in Counter(subset.decode(wanted)).items():
        if uid in holders:
            expected += [holders[uid][i % len(holders[uid])] for i in range(count)]
    assert list(zip(found["part"].to_pylist(), map(int, found["key"].to_pylist()), strict=True)) == sorted(
        expected
    )


def test_the_command_with_two_workers_gives_the_same_bytes(tmp_path, capsys):
    from d2prune.cli.main import main

    made = plain_pool()
    put_pool(tmp_path / "pool", made)
    url = subset_file(tmp_path, [item.uid for shard in made for item in shard[::2]])
    command = ["reshard", "--subset", url, "--input", str(tmp_path / "pool"), "--samples-per-shard", "4"]
    for workers in "12":
        assert main([*command, "--output", str(tmp_path / workers), "--workers", workers]) == 0
    assert "30 samples in 8 tars, 0 not found" in capsys.readouterr().out
    assert tree(tmp_path / "1") == tree(tmp_path / "2")
    assert main([*command, "--output", str(tmp_path / "pool")]) == 2
    assert "is not empty" in capsys.readouterr().err
