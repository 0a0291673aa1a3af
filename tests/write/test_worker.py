"""The write stage against a naive tarfile loop: no gaps, nothing lost, the same bytes in any order."""

import json
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest

from d2prune.errors import BooksError, UserError
from d2prune.inputs.tar.write import MODIFIED
from d2prune.output import subset
from tests.output.pools import Made, build, jpeg, naive, plain_pool, read_tars, sample, tree, uid_of
from tests.output.runs import write
from tests.power_cut import DEAD


def every(made, step=2):
    counter = iter(range(10**6))
    return [[next(counter) % step == 0 for _ in shard] for shard in made]


def odd_pool():
    """Faulty and unusual samples that the embed stage accepts."""
    twin = uid_of("twin")
    long = "folder/" + "x" * 120
    first = [
        sample("a/b/0001", number=1),
        sample("ünïcödé-名前", number=2),
        sample(long, number=3),
        sample("upper", number=4, image="JPG", text="TXT", meta="Json"),
        sample("twin-1", uid=twin, number=5),
        sample("twin-2", uid=twin, number=6),
        Made("no-json", uid_of("no-json"), (("png", jpeg(7)), ("txt", b"without json"))),
        Made("many", uid_of("many"), (("jpg", jpeg(8)), ("txt", b"x"), ("json", b"{}"), ("cls", b"7"))),
        sample("last", number=9),
    ]
    # The last key of a shard is also the first of the next one.
    return [first, [sample("last", number=10), sample("twin-3", uid=twin, number=11)], []]


@pytest.mark.parametrize("samples_per_shard", [1, 3, 7, 1000])
def test_equals_the_naive_loop(tmp_path, samples_per_shard):
    made = plain_pool()
    pool = build(tmp_path, made, every(made))
    manifest, _ = write(pool, str(tmp_path / "out"), samples_per_shard)
    expected = naive(made, pool.kept, samples_per_shard)
    assert read_tars(tmp_path / "out") == expected
    assert manifest.counts["written"] == manifest.counts["selected"] == 30
    assert manifest.counts["shards"] == len(expected)
    assert manifest.counts["pool"] == 60


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_unusual_samples_are_copied_unchanged(tmp_path, format):
    made = odd_pool()
    kept = [[True] * len(shard) for shard in made]
    pool = build(tmp_path, made, kept, format)
    write(pool, str(tmp_path / "out"), 6)
    assert read_tars(tmp_path / "out") == naive(made, kept, 6)
    names = [name for tar in read_tars(tmp_path / "out") for name, _ in tar]
    assert f"{uid_of('twin')}-1.jpg" in names


def test_headers_do_not_depend_on_the_source(tmp_path):
    made = plain_pool(1, 4)
    write(build(tmp_path, made, every(made, 1)), str(tmp_path / "out"))
    with tarfile.open(tmp_path / "out" / "00000000.tar") as tar:
        for header in tar:
            assert (header.mtime, header.uid, header.gid, header.mode) == (MODIFIED, 0, 0, 0o644)
            assert (header.uname, header.gname) == ("", "")


def test_the_files_beside_the_tars(tmp_path):
    made = plain_pool()
    pool = build(tmp_path, made, every(made))
    manifest, _ = write(pool, str(tmp_path / "out"), 7)
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [".d2prune-run.json", "manifest.json", *(file.name for file in manifest.files)]
    )
    assert [json.loads((out / f"{i:08d}_stats.json").read_text())["successes"] for i in range(5)] == [
        7,
        7,
        7,
        7,
        2,
    ]
    assert json.loads((out / "sizes.json").read_text()) == {
        f"{i:08d}.tar": n for i, n in enumerate([7, 7, 7, 7, 2])
    }
    meta = json.loads((out / "meta.json").read_text())
    assert (meta["output_shard_count"], meta["output_shard_format"]) == (5, "{:08d}.tar")
    rows = [row for i in range(5) for row in pq.read_table(out / f"{i:08d}.parquet").to_pylist()]
    chosen = [
        item
        for shard, keep in zip(made, pool.kept, strict=True)
        for item, k in zip(shard, keep, strict=True)
        if k
    ]
    assert [row["uid"] for row in rows] == [item.uid for item in chosen]
    assert [row["source_key"] for row in rows] == [item.key for item in chosen]
    assert all(
        row["key"].startswith(row["uid"]) and row["kept"] and row["clip_score"] is not None for row in rows
    )
    listed = [row for i in range(3) for row in pq.read_table(out / f"decisions-{i:08d}.parquet").to_pylist()]
    assert [row["uid"] for row in listed] == [item.uid for shard in made for item in shard]
    assert [row["kept"] for row in listed] == [flag for keep in pool.kept for flag in keep]
    assert subset.decode(subset.read(str(out / "subset.npy"))) == sorted(item.uid for item in chosen)
    assert np.load(out / "subset.npy").dtype == np.dtype("u8,u8")


def test_the_manifest_records_sizes_and_checksums(tmp_path):
    import hashlib

    made = plain_pool()
    manifest, _ = write(build(tmp_path, made, every(made)), str(tmp_path / "out"))
    for file in manifest.files:
        data = (tmp_path / "out" / file.name).read_bytes()
        assert (file.size, file.checksum) == (len(data), hashlib.sha256(data).hexdigest())


def test_bytes_do_not_depend_on_the_order_of_units_or_the_folder(tmp_path):
    made = odd_pool()
    pool = build(tmp_path, made, every(made))
    write(pool, str(tmp_path / "one"), 3)
    # Same work_dir, another folder: receipts exist, but their objects do not.
    write(pool, str(tmp_path / "two"), 3, order=lambda units: units[::-1])
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_members_that_trainers_cannot_decode_are_set_aside(tmp_path):
    broken = Made("0", uid_of("0"), (("jpg", jpeg(1)), ("txt", b"caf\xe9"), ("json", b"{not json")))
    pool = build(tmp_path, [[broken, sample("1")]], [[True, True]])
    manifest, _ = write(pool, str(tmp_path / "out"))
    ((*head, _, _, _),) = read_tars(tmp_path / "out")
    name = f"{broken.uid}-0"
    assert head == [
        (f"{name}.jpg", jpeg(1)),
        (f"{name}.txt", "caf\ufffd".encode()),
        (f"{name}.txt-original", b"caf\xe9"),
        (f"{name}.json-invalid", b"{not json"),
    ]
    assert (manifest.counts["caption_repaired"], manifest.counts["json_set_aside"]) == (1, 1)


def test_complete_units_are_not_written_again(tmp_path):
    made = plain_pool()
    pool = build(tmp_path, made, every(made))
    out = tmp_path / "out"
    write(pool, str(out))
    before = tree(out)
    assert write(pool, str(out))[1] == []
    (out / "00000002.tar").unlink()
    (out / "00000003.parquet").write_bytes(b"short")
    (out / f".tmp-d2prune-{DEAD}-1f").write_bytes(b"x")
    _, done = write(pool, str(out))
    assert [key[:8] for key in done] == ["00000002", "00000003"]
    assert tree(out) == before


def test_a_selection_of_one_or_no_sample(tmp_path):
    made = plain_pool(2, 3)
    manifest, _ = write(build(tmp_path, made, every(made, 10**6)), str(tmp_path / "some"))
    assert manifest.counts["written"] == 1
    manifest, _ = write(build(tmp_path / "b", made, [[False] * 3] * 2), str(tmp_path / "none"))
    assert (manifest.counts["written"], manifest.counts["shards"]) == (0, 0)
    assert subset.read(str(tmp_path / "none" / "subset.npy")).shape == (0,)


def test_counts_that_do_not_balance_leave_no_manifest(tmp_path):
    made = plain_pool(1, 5)
    pool = build(tmp_path, made, every(made, 1))
    pool.select.units[0].counters["kept"] = 4
    with pytest.raises(BooksError):
        write(pool, str(tmp_path / "out"), 7)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_the_error_names_a_changed_or_missing_input(tmp_path):
    made = plain_pool(1, 5)
    pool = build(tmp_path, made, every(made, 1))
    path = tmp_path / "pool" / "00000000.tar"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"000000003.jpg", b"000000007.jpg"))
    with pytest.raises(UserError, match="000000003 is no longer at byte"):
        write(pool, str(tmp_path / "out"))
    path.unlink()
    with pytest.raises(UserError, match=r"00000000\.tar: no longer exists"):
        write(pool, str(tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*.tar"))
    assert not list((tmp_path / "out").glob(".tmp*"))
