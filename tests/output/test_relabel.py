"""New headers in place against the general way, sample by sample, on ordinary and on odd samples."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.inputs.tar.reader import parse_sample
from d2prune.output.relabel import Texts, relabel
from d2prune.output.tar_stream import encode_members, is_json, trainable

KEYS = st.sampled_from(["a", "folder/b", "x" * 60, "y" * 120, "ünïcödé", "UPPER"])
EXTENSIONS = st.sampled_from(["jpg", "JPG", "txt", "TXT", "json", "Json", "cls", "seg.png", "z" * 70])
PAYLOADS = st.one_of(
    st.binary(max_size=1100),
    st.sampled_from(
        [b"{}", b'{"uid": 1}', b'{"a": NaN}', b" [1] ", b"{not json", "caf\xe9".encode(), b"caf\xe9"]
    ),
)
MEMBERS = st.dictionaries(EXTENSIONS, PAYLOADS, min_size=1, max_size=4)
SAMPLES = st.lists(
    st.tuples(KEYS, MEMBERS, st.sampled_from([tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])), max_size=6
)


def tar_bytes(key, members, form=tarfile.USTAR_FORMAT):
    """A sample as it lies in a tar, with an owner and a time."""
    made = io.BytesIO()
    for extension, payload in members.items():
        header = tarfile.TarInfo(f"{key}.{extension}")
        header.size, header.mtime, header.uname, header.mode = len(payload), 1_700_000_000, "somebody", 0o600
        # Padding that is not zero, as some programs leave it.
        made.write(header.tobuf(form, "utf-8") + payload + b"\x01" * (-len(payload) % 512))
    return made.getvalue()


def plainly(data, new_key):
    """The general way."""
    members, repairs = trainable(parse_sample(data))
    return b"".join(encode_members(new_key, members)), repairs


@settings(deadline=None)
@given(SAMPLES, st.lists(st.integers(1, 40), min_size=6, max_size=6))
def test_equals_the_general_way_or_says_that_it_cannot(samples, lengths):
    keys, datas = [], []
    for key, members, form in samples:
        try:
            datas.append(tar_bytes(key, members, form))
            keys.append(key)
        except ValueError:
            continue  # A name too long for the older format.
    names = [f"{'n' * length}-{i}" for i, length in zip(range(len(keys)), lengths, strict=False)]
    block = memoryview(bytearray(b"".join(datas)))
    sizes = np.array([len(data) for data in datas], np.int64)
    left = relabel(
        block, sizes, Texts.of(pa.array(keys, pa.string())), Texts.of(pa.array(names, pa.string()))
    )
    start = 0
    for i, (data, name) in enumerate(zip(datas, names, strict=True)):
        now = bytes(block[start : start + len(data)])
        start += len(data)
        expected, repairs = plainly(data, name)
        if i in left:
            assert now == data
        else:
            assert now == expected and not repairs


def test_ordinary_samples_are_not_left():
    members = {
        "jpg": b"\xff" * 700,
        "txt": "caf\xe9".encode(),
        "json": json.dumps({"uid": "é", "n": [1]}).encode(),
    }
    datas = [tar_bytes(f"{i:09d}", members) for i in range(5)]
    keys, names = [f"{i:09d}" for i in range(5)], [f"{'0' * 32}-{i}" for i in range(5)]
    block = memoryview(bytearray(b"".join(datas)))
    sizes = np.array([len(data) for data in datas], np.int64)
    # Columns that are slices, as those of a tar that draws from many are.
    columns = [
        Texts.of(pa.chunked_array([["before"], values, ["after"]]).slice(1, 5)) for values in (keys, names)
    ]
    assert relabel(block, sizes, *columns) == []
    assert bytes(block) == b"".join(plainly(data, name)[0] for data, name in zip(datas, names, strict=True))


@pytest.mark.parametrize("expected", ["000", "0000000", "000001", ""])
def test_a_sample_of_another_key_is_left(expected):
    data = tar_bytes("000000", {"jpg": b"x"})
    block = memoryview(bytearray(data))
    assert relabel(
        block, np.array([len(data)]), Texts.of(pa.array([expected])), Texts.of(pa.array(["new"]))
    ) == [0]
    assert bytes(block) == data


@given(st.one_of(st.binary(max_size=8), st.text(alphabet='{}[]",:1e.-tNa \n', max_size=8).map(str.encode)))
def test_is_json_is_what_json_says(data):
    try:
        json.loads(data)
        takes = True
    except (ValueError, RecursionError):
        takes = False
    assert is_json(data) == takes
