"""Renaming in place against member-by-member encoding, on ordinary and unusual samples."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.inputs.tar.reader import parse_sample
from d2prune.output.executable import COMPRESSED, EXECUTABLE, PROGRAMS, is_executable
from d2prune.output.rename_samples import Strings, rename_in_place
from d2prune.output.tar_stream import encode_members, is_json, make_decodable

KEYS = st.sampled_from(["a", "folder/b", "x" * 60, "y" * 120, "ünïcödé", "UPPER"])
PARTS = st.sampled_from([*EXECUTABLE, *COMPRESSED, "PYD", "Gz", "jpg", "pyd-unsafe", "py", "x", ""])
EXTENSIONS = st.one_of(
    st.sampled_from(["jpg", "JPG", "txt", "TXT", "json", "Json", "cls", "seg.png", "z" * 70]),
    st.lists(PARTS, min_size=1, max_size=4).map(".".join).filter(bool),
)
PAYLOADS = st.one_of(
    st.binary(max_size=1100),
    st.sampled_from(
        [
            b"{}",
            b'{"uid": 1}',
            b'{"a": NaN}',
            b" [1] ",
            b"{not json",
            "caf\xe9".encode(),
            b"caf\xe9",
            b"%!PS",
            b"\x1c",
        ]
    ),
)
MEMBERS = st.lists(
    st.tuples(EXTENSIONS, PAYLOADS), min_size=1, max_size=4, unique_by=lambda member: member[0].lower()
).map(dict)
SAMPLES = st.lists(
    st.tuples(KEYS, MEMBERS, st.sampled_from([tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])), max_size=6
)


def tar_bytes(key, members, form=tarfile.USTAR_FORMAT):
    """Encode a sample as tarfile does, with an owner, a time and padding that is not zero."""
    made = io.BytesIO()
    for extension, payload in members.items():
        header = tarfile.TarInfo(f"{key}.{extension}")
        header.size, header.mtime, header.uname, header.mode = len(payload), 1_700_000_000, "someone", 0o600
        made.write(header.tobuf(form, "utf-8") + payload + b"\x01" * (-len(payload) % 512))
    return made.getvalue()


def encode_by_member(data, new_key, keep_executable=False):
    """Encode a sample member by member."""
    members, repairs = make_decodable(parse_sample(data), keep_executable)
    return b"".join(encode_members(new_key, members)), repairs


@settings(deadline=None)
@given(SAMPLES, st.lists(st.integers(1, 40), min_size=6, max_size=6), st.booleans())
def test_renaming_equals_encoding_by_member_or_leaves_the_sample_unchanged(samples, lengths, keep):
    keys, datas = [], []
    for key, members, form in samples:
        try:
            datas.append(tar_bytes(key, members, form))
            keys.append(key)
        except ValueError:
            continue  # The name is too long for USTAR.
    names = [f"{'n' * length}-{i}" for i, length in zip(range(len(keys)), lengths, strict=False)]
    block = memoryview(bytearray(b"".join(datas)))
    sizes = np.array([len(data) for data in datas], np.int64)
    left = rename_in_place(
        block,
        sizes,
        Strings.from_column(pa.array(keys, pa.string())),
        Strings.from_column(pa.array(names, pa.string())),
        keep,
    )
    start = 0
    for i, (data, name) in enumerate(zip(datas, names, strict=True)):
        now = bytes(block[start : start + len(data)])
        start += len(data)
        expected, repairs = encode_by_member(data, name, keep)
        if i in left:
            assert now == data
        else:
            assert now == expected and not repairs


@settings(deadline=None)
@given(
    st.lists(PARTS, min_size=1, max_size=4).map(".".join).filter(bool),
    st.sampled_from([b"", b"x", *PROGRAMS, b"%!PS-Adobe"]),
)
def test_the_kernel_leaves_members_that_a_loader_may_execute(extension, payload):
    data = tar_bytes("a", {extension: payload})
    block = memoryview(bytearray(data))
    left = rename_in_place(
        block,
        np.array([len(data)], np.int64),
        Strings.from_column(pa.array(["a"])),
        Strings.from_column(pa.array(["new"])),
    )
    assert left or not is_executable(extension.lower(), payload)


def test_ordinary_samples_are_renamed():
    members = {
        "jpg": b"\xff" * 700,
        "txt": "caf\xe9".encode(),
        "json": json.dumps({"uid": "é", "n": [1]}).encode(),
    }
    datas = [tar_bytes(f"{i:09d}", members) for i in range(5)]
    keys, names = [f"{i:09d}" for i in range(5)], [f"{'0' * 32}-{i}" for i in range(5)]
    block = memoryview(bytearray(b"".join(datas)))
    sizes = np.array([len(data) for data in datas], np.int64)
    # Slices of columns, as in a tar with samples of several input tars.
    columns = [
        Strings.from_column(pa.chunked_array([["before"], values, ["after"]]).slice(1, 5))
        for values in (keys, names)
    ]
    assert rename_in_place(block, sizes, *columns) == []
    assert bytes(block) == b"".join(
        encode_by_member(data, name)[0] for data, name in zip(datas, names, strict=True)
    )


@pytest.mark.parametrize("expected", ["000", "0000000", "000001", ""])
def test_a_sample_with_an_unexpected_key_is_left_unchanged(expected):
    data = tar_bytes("000000", {"jpg": b"x"})
    block = memoryview(bytearray(data))
    assert rename_in_place(
        block,
        np.array([len(data)]),
        Strings.from_column(pa.array([expected])),
        Strings.from_column(pa.array(["new"])),
    ) == [0]
    assert bytes(block) == data


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=8), st.text(alphabet='{}[]",:1e.-tNa \n', max_size=8).map(str.encode)))
def test_is_json_agrees_with_json_loads(data):
    try:
        json.loads(data)
        accepted = True
    except (ValueError, RecursionError):
        accepted = False
    assert is_json(data) == accepted
