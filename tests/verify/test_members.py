"""`verify` reports members that WebDataset fails to decode, since a trainer then drops the sample."""

import gzip
import importlib.util
import io
import json
import struct

import msgpack
import numpy as np
import pytest
import webdataset
from PIL import Image
from webdataset import autodecode, tenbin

from d2prune.inputs.tar.reader import TarSample
from d2prune.output.executable import EXECUTABLE, IMAGES
from d2prune.verify import folder, members
from d2prune.verify.members import DECODERS, LOADED, find_member_faults
from tests.output.pools import Made, build, jpeg, sample, uid_of
from tests.output.runs import write


def npy(array):
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


def npz(**arrays):
    sink = io.BytesIO()
    np.savez_compressed(sink, **arrays)
    return sink.getvalue()


def gif():
    sink = io.BytesIO()
    Image.new("P", (4, 4)).save(sink, "GIF")
    return sink.getvalue()


NUMBERS = np.arange(6, dtype=np.float32)
TENSORS = bytes(tenbin.encode_buffer([NUMBERS, NUMBERS]))
GOOD_AND_BAD = {
    "txt": (b"caf\xc3\xa9", [b"caf\xe9"]),
    "cls": (b" 12\n", [b"twelve", b"", b"9" * 5000]),
    "json": (b'{"a": [1]}', [b"{not json", b"", b"[" * 100_000, b"9" * 5000]),
    "npy": (npy(NUMBERS), [npy(NUMBERS)[:-1], b"", b"\x93NUMPY", npy(np.array([{}], object))]),
    "npz": (npz(a=NUMBERS), [npz(a=NUMBERS)[:-30], b"", npz(a=np.array([{}], object))]),
    "mp": (msgpack.packb({"a": [1, 2]}), [b"\xc1", b"", msgpack.packb([1, 2])[:-1]]),
    "ten": (
        TENSORS,
        [TENSORS[:-64], TENSORS[:84], b"no chunk", struct.pack("<8sq", b"~TenBin~", -64) + bytes(64)],
    ),
    "gif": (gif(), [gif()[:20], b"", b"GIF89a"]),
}
ALIASES = {
    "txt": ["text", "transcript"],
    "cls": ["cls2", "index", "inx", "id"],
    "json": ["jsn"],
    "mp": ["msg"],
    "ten": ["tb"],
}
CASES = [
    pytest.param(alias, good, bad, id=alias)
    for name, (good, bad) in GOOD_AND_BAD.items()
    for alias in (name, *ALIASES.get(name, ()))
]


def faults_of(extension, payload):
    found = TarSample("key", 0, 0, {extension: payload}, {}, (extension,))
    return find_member_faults(found, keep_executable=False)


def webdataset_decodes(extension, payload):
    try:
        autodecode.Decoder([autodecode.imagehandler("pilrgb")])({"__key__": "key", extension: payload})
    except autodecode.DecodingError:
        return False
    return True


def test_every_decoder_of_webdataset_is_known():
    assert set(autodecode.decoders) <= {*DECODERS, *EXECUTABLE}
    assert {*DECODERS} - {"cbor"} == {param.id for param in CASES} - IMAGES


@pytest.mark.parametrize(("extension", "good", "bad"), CASES)
def test_members_are_faults_exactly_where_webdataset_fails(extension, good, bad):
    for prefix in ("", "more."):
        name = prefix + extension
        if name in LOADED:
            # The data loader itself is given these.
            continue
        assert faults_of(name, good) == [] and webdataset_decodes(name, good)
        assert faults_of(f"{name}.gz", gzip.compress(good)) == []
        for payload in bad:
            (fault,) = faults_of(name, payload)
            assert fault.startswith(f"key: {name}: WebDataset fails to decode this member")
            (fault,) = faults_of(f"{name}.gz", gzip.compress(payload))
            # WebDataset reads a chunk of negative length for ever.
            if b"~TenBin~" + struct.pack("<q", -64) not in payload:
                assert not webdataset_decodes(name, payload)


@pytest.mark.skipif(importlib.util.find_spec("cbor") is not None, reason="cbor is installed")
def test_a_member_that_needs_a_missing_package_is_a_fault():
    """WebDataset fails, too, and the trainer drops the sample."""
    assert "No module named 'cbor'" in faults_of("cbor", b"\x00")[0]
    assert not webdataset_decodes("cbor", b"\x00")


def test_unknown_extensions_are_not_decoded():
    for extension in ("json-invalid", "pyd-unsafe", "mp3", "npy.bak", "", "safetensors"):
        assert faults_of(extension, b"\xff") == []


def test_damaged_or_huge_compressed_members(monkeypatch):
    assert "BadGzipFile" in faults_of("cls.gz", b"1")[0]
    assert "EOFError" in faults_of("cls.gz", gzip.compress(b"1")[:-4])[0]
    monkeypatch.setattr(members, "_MAX_EXPANDED_BYTES", 1000)
    assert "expands to more than 1000 bytes" in faults_of("bin.gz", gzip.compress(bytes(2000)))[0]
    assert "expands to more than 1000 bytes" in faults_of("npz", npz(a=np.zeros(1000)))[0]


def test_verify_reports_what_the_loader_is_not_given(tmp_path):
    odd = Made("0", uid_of("0"), (("jpg", jpeg(1)), ("txt", b"words"), ("npy", b"no array"), ("mp3", b"?")))
    write(build(tmp_path, [[odd, sample("1")]], [[True, True]]), str(tmp_path / "out"))
    (fault,) = folder.verify(str(tmp_path / "out"), full=True)
    assert fault.startswith(f"00000000.tar: {odd.uid}-0: npy: WebDataset fails to decode this member")
    url = str(tmp_path / "out" / "00000000.tar")
    data = webdataset.WebDataset(url, shardshuffle=False).decode(
        "pilrgb", handler=webdataset.ignore_and_continue
    )
    assert len(list(data)) == 1


def test_the_loader_is_not_run_if_open_clip_decodes_in_another_way(tmp_path, monkeypatch):
    from d2prune import torchvision_shim

    torchvision_shim.install_if_needed()
    from open_clip_train import data as open_clip_data

    write(build(tmp_path, [[sample("1")]], [[True]]), str(tmp_path / "out"))
    monkeypatch.setattr(open_clip_data, "get_wds_dataset", lambda *_args, **_options: None)
    (fault,) = folder.verify(str(tmp_path / "out"), full=True)
    assert "data loader was not run" in fault


def test_records_that_are_json_are_not_faults():
    assert faults_of("meta.json", json.dumps({"a": 1}).encode()) == []
