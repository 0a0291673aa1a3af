"""Tars that change between embed and write, with the same layout: other bytes are never written."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from d2prune import store
from d2prune.errors import UserError
from d2prune.inputs.tar.checksum import hash_sample, hash_samples
from d2prune.inputs.tar.reader import TarReader
from d2prune.output import shard_writer
from d2prune.output.source_rows import read_source_rows
from d2prune.verify import folder
from tests.output.pools import Made, build, jpeg, plain_pool, sample
from tests.output.runs import write

KEPT = [[True, True, False], [True, True, True]]


def small_pool():
    """One sample has a further member, and one a name that needs an extended header."""
    first = [
        sample("a", number=1),
        Made("b", sample("b").uid, (*sample("b", number=2).members, ("dat", b"array" * 300))),
        sample("c", number=3),
    ]
    return [first, [sample("long" * 40, number=4), sample("e", number=5), sample("f", number=6)]]


def replace(pool, shard, key, extension):
    """Change one member's payload in place, its size unchanged; return the file."""
    path = Path(pool.shards[shard].url)
    made = next(item for item in pool.made[shard] if item.key == key)
    payload = dict(made.members)[extension]
    other = payload[:-9] + bytes(byte ^ 1 for byte in payload[-9:-3]) + payload[-3:]
    data = path.read_bytes()
    assert data.count(payload) == 1
    path.write_bytes(data.replace(payload, other))
    return path


@pytest.mark.parametrize(
    ("shard", "key", "extension"),
    [
        *((0, "a", extension) for extension in ("jpg", "txt", "json")),
        (0, "b", "dat"),
        *((1, "long" * 40, extension) for extension in ("jpg", "txt", "json")),
        (1, "f", "txt"),
    ],
)
def test_another_payload_stops_the_write(tmp_path, shard, key, extension):
    pool = build(tmp_path, small_pool(), KEPT)
    replace(pool, shard, key, extension)
    with pytest.raises(UserError) as caught:
        write(pool, str(tmp_path / "out"), 10)
    line = str(caught.value)
    assert line.startswith(f"{pool.shards[shard].url}: sample {key} is no longer at byte ")
    assert (
        "found checksum" in line
        and "changed during the run; empty the output folder and run again" in line
        and "\n" not in line
    )
    assert not list((tmp_path / "out").glob("*.tar"))


def test_a_sample_that_is_not_kept_may_change(tmp_path):
    pool = build(tmp_path, small_pool(), KEPT)
    replace(pool, 0, "c", "txt")
    manifest, _ = write(pool, str(tmp_path / "out"), 10)
    assert manifest.counts["written"] == 5


@pytest.mark.parametrize("member", [0, 1, 2])
def test_swapped_payloads_of_equal_size_stop_the_write(tmp_path, member):
    """Two samples exchange their images, captions or jsons, which all have one size."""
    made = [
        Made(key, sample(key).uid, (("jpg", jpeg(1) + end), ("txt", b"text " + end), ("json", b"[%s]" % end)))
        for key, end in (("a", b"1"), ("b", b"2"))
    ]
    pool = build(tmp_path, [made], [[True, True]])
    path = Path(pool.shards[0].url)
    one, two = made[0].members[member][1], made[1].members[member][1]
    data = path.read_bytes().replace(one, b"@" * len(one)).replace(two, one).replace(b"@" * len(one), two)
    path.write_bytes(data)
    with pytest.raises(UserError, match="sample a is no longer at byte"):
        write(pool, str(tmp_path / "out"))


def test_the_same_content_with_other_times_is_written(tmp_path):
    """Times and owners in headers are not part of a sample: repacking the same files changes nothing."""
    pool = build(tmp_path, plain_pool(1, 3), [[True] * 3])
    path = Path(pool.shards[0].url)
    with open(path, "rb") as stream:
        before = [hash_sample(path.read_bytes()[s.offset : s.offset + s.size]) for s in TarReader(stream)]
    data = bytearray(path.read_bytes())
    with open(path, "rb") as stream:
        offsets = [s.offset for s in TarReader(stream)]
    for at in offsets:
        data[at + 136 : at + 147] = b"00000000001"
        data[at + 148 : at + 156] = b" " * 8
        data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    path.write_bytes(data)
    with open(path, "rb") as stream:
        assert before == [hash_sample(bytes(data)[s.offset : s.offset + s.size]) for s in TarReader(stream)]
    assert write(pool, str(tmp_path / "out"))[0].counts["written"] == 3


def test_damage_under_the_old_time_is_reported_as_damage(tmp_path):
    pool = build(tmp_path, small_pool(), KEPT)
    path = Path(pool.shards[0].url)
    status = path.stat()
    replace(pool, 0, "a", "jpg")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(UserError, match=r"sample a .*the tar is damaged.*restore it.*and run again"):
        write(pool, str(tmp_path / "out"))


def test_a_replaced_object_on_s3_stops_the_write(tmp_path, s3):
    bucket = s3.make_bucket("replaced")
    pool = build(tmp_path, small_pool(), KEPT, url=f"{bucket}/pool", work_dir=f"{bucket}/work")
    url = pool.shards[1].url
    store.write_bytes(url, store.read_bytes(url).replace(b"a drawing of e", b"a drawing of E"))
    with pytest.raises(UserError, match=r"sample e is no longer at byte .* run again"):
        write(pool, f"{bucket}/out", 10)


@pytest.mark.parametrize("shard, key", [(0, "a"), (1, "long" * 40)])
def test_verify_finds_samples_that_are_not_those_embedded(tmp_path, monkeypatch, shard, key):
    """Even where output and source agree."""
    pool = build(tmp_path, small_pool(), KEPT)
    replace(pool, shard, key, "jpg")
    monkeypatch.setattr(shard_writer, "_compare_checksums", lambda *_: None)
    write(pool, str(tmp_path / "out"), 10)
    (fault,) = folder.verify(str(tmp_path / "out"), depth=folder.Depth(tars=None, samples=None, loader=False))
    assert f"(from {pool.shards[shard].name}, {key}): equals its source, but other bytes" in fault


def test_a_changed_table_is_not_read(tmp_path):
    url = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["a", "b"]}), url)
    listed = store.info(url)
    assert read_source_rows(listed, np.array([1]), [])["text"].to_pylist() == ["b"]
    pq.write_table(pa.table({"text": ["a", "c"]}), url)
    with pytest.raises(UserError, match="changed since this run began"):
        read_source_rows(listed, np.array([1]), [])


def test_checksums_of_a_block_equal_those_of_its_samples(tmp_path):
    pool = build(tmp_path, small_pool(), KEPT)
    for shard in pool.shards:
        data = Path(shard.url).read_bytes()
        with open(shard.url, "rb") as stream:
            found = list(TarReader(stream))
        pieces = [data[s.offset : s.offset + s.size] for s in found] + [b"x" * 1_024]
        sizes = np.array([len(piece) for piece in pieces])
        expected = [*map(hash_sample, pieces[:-1]), None]
        assert hash_samples(memoryview(b"".join(pieces)), sizes) == expected
        assert hash_samples(memoryview(b"".join(pieces[::-1])), sizes[::-1]) == expected[::-1]
        assert len(set(expected)) == len(expected)


def test_the_table_beside_a_tar_has_the_checksums(tmp_path):
    pool = build(tmp_path, small_pool(), KEPT)
    write(pool, str(tmp_path / "out"), 10)
    rows = pq.read_table(tmp_path / "out" / "00000000.parquet").to_pylist()
    for row in rows:
        path = Path(pool.url) / f"{row['shard']}.tar"
        assert row["checksum"] == hash_sample(path.read_bytes()[row["offset"] :][: row["size"]])
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["counts"]["written"] == 5
