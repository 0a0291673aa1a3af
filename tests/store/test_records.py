"""Receipts in little memory, and manifests read and written one unit at a time."""

import json
import pickle
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune import store
from d2prune.store import artifacts
from d2prune.store.artifacts import FileRecord, Manifest, Receipt
from d2prune.store.manifest_file import load_head, load_manifest, write_manifest
from d2prune.store.records import Receipts, pack_receipt, unpack_receipt

TEXT = st.text(max_size=12)
TRAPS = st.sampled_from(["  }", "}\n", ' "units": []', "https://me:secret@host/a?b"])
NUMBERS = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT | TRAPS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
FILES = st.builds(FileRecord, TEXT, st.none() | st.integers(0), st.integers(0), TEXT)
RECEIPTS = st.lists(
    st.builds(
        Receipt,
        TEXT,
        st.lists(FILES, max_size=2).map(tuple),
        st.dictionaries(TEXT, st.integers(), max_size=2),
        st.dictionaries(TEXT, JSON, max_size=2),
    ),
    max_size=5,
)


def make_receipts(count):
    for number in range(count):
        files = tuple(
            FileRecord(name, 10_000, 5_000_000 + number, *[store.checksum(f"{name}{number}".encode())] * 2)
            for name in ("samples.parquet", "rejects.parquet")
        )
        fact = {"shard": f"{number:08d}", "checksum": store.checksum(f"x{number}".encode())}
        counters = {"read": 10_000, "embedded": 9_990, "rejected": 10}
        yield Receipt(f"{number:08d}-{number * 977:016x}", files, counters, {"in_place": fact})


@settings(max_examples=25, deadline=None)
@given(receipts=RECEIPTS, params=st.dictionaries(TEXT, JSON, max_size=2))
def test_a_manifest_is_the_same_json_whatever_it_holds(tmp_path_factory, receipts, params):
    url = str(tmp_path_factory.mktemp("m") / "manifest.json")
    manifest = Manifest("embed", "f", params, {"pool": "p"}, Receipts(receipts), {"read": 3}, {"a": 1.5})
    write_manifest(url, manifest)
    whole = {**vars(manifest), "units": list(manifest.units)}
    text = store.encode_record(whole, sort_keys=True)
    sealed = json.loads(text) | {"checksum": store.checksum(text)}
    assert store.read_bytes(url) == store.encode_record(sealed, sort_keys=True, indent=1)
    found = load_manifest(url)
    assert json.loads(store.encode_record([*found.units])) == json.loads(store.encode_record(receipts))
    assert artifacts.read_json(url)["fingerprint"] == found.fingerprint == "f"
    assert load_head(url)["params"] == json.loads(store.encode_record(params))
    assert b"secret" not in store.read_bytes(url)


def test_every_damage_of_a_manifest_is_noticed(tmp_path):
    url = str(tmp_path / "f" / "manifest.json")
    manifest = Manifest("embed", "f", {"a": 1}, {}, Receipts(make_receipts(3)), {"read": 3})
    artifacts.commit_manifest(str(tmp_path), manifest)
    assert artifacts.read_manifest(str(tmp_path), "f") == manifest
    data = store.read_bytes(url)
    damaged = [data[:size] for size in range(0, len(data), 31)] + [data[:-1], data + b"x", data + b"\n}"]
    damaged += [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(0, len(data), 23)]
    lines = data.splitlines(keepends=True)
    damaged += [b"".join(lines[:at] + lines[at + 1 :]) for at in range(len(lines))]
    for value in (*damaged, b"[]", b"1", b"\xff" * 100, b"[" * 100_000):
        (tmp_path / "f" / "manifest.json").write_bytes(value)
        assert artifacts.read_manifest(str(tmp_path), "f") is None


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 200])
def test_receipts_are_a_sequence(count):
    plain = list(make_receipts(count))
    packed = Receipts(plain)
    assert packed == plain and plain == packed and packed == tuple(plain) and list(packed) == plain
    assert len(packed) == count and packed != [*plain, None] and packed != 3
    for index in [*range(0, count, 17), *range(-count, 0, 31)]:
        assert packed[index] == plain[index]
    assert packed[1:5] == plain[1:5] and packed[::-70] == plain[::-70]
    for index in (count, -count - 1):
        with pytest.raises(IndexError):
            packed[index]
    assert pickle.loads(pickle.dumps(packed)) == plain
    assert all(unpack_receipt(pack_receipt(receipt)) == receipt for receipt in plain[:3])


def test_a_receipt_takes_a_few_hundred_bytes(tmp_path):
    """A driver with a million units keeps its receipts, and reads a manifest, in far less than 1 GB."""
    count = 500
    write_manifest(f"{tmp_path}/m", Manifest("embed", "f", {}, {}, Receipts(make_receipts(count)), {}))
    tracemalloc.start()
    found = load_manifest(f"{tmp_path}/m")
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.units) == count and held < 400 * count
    # Buffers of a megabyte, and a block of receipts.
    assert peak < 400 * count + 3e6


@pytest.mark.parametrize("name", ["minioadmin", "a-minioadmin-b", "password=abcd1234", "authorization: x"])
def test_names_that_look_like_secrets_are_kept_and_credentials_of_urls_are_not(monkeypatch, name):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "minioadmin")
    record = {name: [name, {"url": f"https://me:minioadmin@host/{name}", "path": f"/{name}/x"}]}
    expected = {name: [name, {"url": f"https://host/{name}", "path": f"/{name}/x"}]}
    assert json.loads(store.encode_record(record)) == expected
    assert store.encode_record(expected) == store.encode_record(record)
