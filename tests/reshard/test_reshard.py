"""Resharding by subset file against a naive loop; repeats, shuffling and resuming."""

import json
import logging
import tarfile
from collections import Counter
from uuid import UUID

import numpy as np
import pytest

from d2prune.errors import UserError
from d2prune.inputs.sample_id import hashed_uid
from d2prune.output import layout, subset
from d2prune.reshard import worker
from d2prune.reshard.reshard import UNITS_IN_FLIGHT, ReshardParams, reshard
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


def test_samples_are_found_by_uid_or_hash(tmp_path):
    """Samples with no json, a broken one or an upper-case uid have the uids that a run gives them.

    A sample without uid and image is skipped.
    """
    bare = Made("bare", "", (("png", jpeg(1)), ("txt", b"no json")))
    broken = Made("broken", "", (("json", b"{"), ("jpg", jpeg(2)), ("txt", b"broken")))
    upper = Made("upper", "", (("jpg", jpeg(3)), ("json", b'{"uid": "%s"}' % (b"A" * 32))))
    nothing = Made("nothing", "", (("txt", b"neither image nor json"),))
    put_pool(tmp_path / "pool", [[bare, broken, nothing, upper]])
    uids = [hashed_uid(jpeg(1), b"no json"), hashed_uid(jpeg(2), b"broken"), "a" * 32]
    manifest = reshard(str(tmp_path / "pool"), subset_file(tmp_path, uids), str(tmp_path / "out"))
    assert (manifest.counts["written"], manifest.counts["pool"]) == (3, 3)
    assert {name.split("-")[0] for name, _ in read_tars(tmp_path / "out")[0]} == set(uids)


def test_repeated_uids(tmp_path):
    """c entries of a uid that k samples have give c samples, spread over the k; missing uids are counted."""
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


def test_missing_entries_are_logged_and_counted(tmp_path, caplog):
    made = plain_pool(1, 2)
    put_pool(tmp_path / "pool", made)
    with caplog.at_level(logging.WARNING):
        manifest = reshard(
            str(tmp_path / "pool"),
            subset_file(tmp_path, ["0" * 32] * 3 + [made[0][1].uid]),
            str(tmp_path / "out"),
        )
    assert "3 of 4 entries are not among the 2 samples" in caplog.text
    assert (manifest.counts["missing"], manifest.counts["written"], manifest.counts["shards"]) == (3, 1, 1)


def test_a_reshard_that_finds_nothing_is_an_error_and_leaves_nothing(tmp_path, capsys):
    from d2prune.cli.main import main

    made = plain_pool(1, 2)
    put_pool(tmp_path / "pool", made)
    out = tmp_path / "out"
    command = ["reshard", "--input", str(tmp_path / "pool"), "--output", str(out), "--subset"]
    for uids, line in (
        (["0" * 32] * 3, "3 of 3 entries are not among the 2 samples of the input: 1 tars, such as "),
        ([], "s.npy: found no uids; expected at least one"),
    ):
        assert main([*command, subset_file(tmp_path, uids)]) == 2
        shown = capsys.readouterr()
        assert len(shown.err.splitlines()) == 1 and line in shown.err and not shown.out
        assert not out.exists() or not list(out.iterdir())
    # The folder is free for the right subset.
    assert main([*command, subset_file(tmp_path, [made[0][0].uid])]) == 0


def test_uuids_in_json_are_found_by_their_digits(tmp_path):
    made = [[sample("a", str(UUID(uid_of("a"))).upper(), 1), sample("b", uid_of("b"), 2)]]
    put_pool(tmp_path / "pool", made)
    url = subset_file(tmp_path, [uid_of("a")])
    assert reshard(str(tmp_path / "pool"), url, str(tmp_path / "out")).counts["written"] == 1
    assert folder.verify(str(tmp_path / "out"), full=True) == []


def test_shuffling_depends_on_the_seed_and_loses_nothing(tmp_path):
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


def test_an_interrupted_reshard_resumes(tmp_path, monkeypatch):
    made = plain_pool()
    put_pool(tmp_path / "pool", made)
    url = subset_file(tmp_path, [item.uid for shard in made for item in shard])
    arguments = (str(tmp_path / "pool"), url, str(tmp_path / "out"), ReshardParams(7), str(tmp_path / "work"))
    done = []
    write_shard = worker.write_shard

    def interrupt_fourth(output, names, *others):
        if names.tar == "00000003.tar":
            raise KeyboardInterrupt
        done.append(names.tar)
        return write_shard(output, names, *others)

    monkeypatch.setattr(worker, "write_shard", interrupt_fourth)
    with pytest.raises(KeyboardInterrupt):
        reshard(*arguments)
    monkeypatch.setattr(worker, "write_shard", lambda *a: done.append(a[1].tar) or write_shard(*a))
    reshard(*arguments)
    # Other tars that were in flight at the interrupt may be written twice.
    assert set(done) == {f"{i:08d}.tar" for i in range(9)} and len(done) < 9 + UNITS_IN_FLIGHT
    reshard(str(tmp_path / "pool"), url, str(tmp_path / "undisturbed"), ReshardParams(7))
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")
    with pytest.raises(UserError, match="another run's data"):
        reshard(*arguments[:3], ReshardParams(8), str(tmp_path / "work"))


def test_a_truncated_tar_contributes_its_complete_samples(tmp_path):
    shards = put_pool(tmp_path / "pool", plain_pool(1, 4))
    with tarfile.open(shards[0].url) as tar:
        cut = tar.getmembers()[10].offset_data + 5
    data = (tmp_path / "pool" / "00000000.tar").read_bytes()[:cut]
    (tmp_path / "pool" / "00000000.tar").write_bytes(data)
    (tmp_path / "pool" / "00000001.tar").write_bytes(b"")
    uids = [item.uid for item in plain_pool(1, 4)[0]]
    manifest = reshard(str(tmp_path / "pool"), subset_file(tmp_path, uids), str(tmp_path / "out"))
    assert (manifest.counts["written"], manifest.counts["missing"]) == (3, 1)


def test_tars_on_s3_equal_local_tars(tmp_path, s3):
    bucket = s3.make_bucket("reshard")
    made = plain_pool()
    put_pool(tmp_path / "pool", made, url=f"{bucket}/pool")
    url = subset_file(tmp_path, [item.uid for shard in made for item in shard[::2]])
    reshard(f"{bucket}/pool/{{00000000..00000002}}.tar", url, f"{bucket}/out", ReshardParams(7, 5))
    reshard(str(tmp_path / "pool"), url, str(tmp_path / "out"), ReshardParams(7, 5))
    for index in range(5):
        name = layout.SHARD_FORMAT.format(index)
        assert (s3.folder / "reshard" / "out" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


@pytest.mark.ray
def test_the_command_writes_the_same_bytes_with_one_and_two_workers(tmp_path, capsys):
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
    assert "is in output" in capsys.readouterr().err
