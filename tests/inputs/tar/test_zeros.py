"""Zeros in a tar: those that tar programs write at its end, and those that replaced something."""

import io
import shutil
import subprocess
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune import store
from d2prune.inputs import rejects
from d2prune.inputs.rejects import Reject
from d2prune.inputs.tar.header import BLOCK, is_end_of_archive
from d2prune.inputs.tar.reader import TarReader, TarSample
from d2prune.inputs.tar.write import END_OF_ARCHIVE
from tests.inputs.tar.test_reader import make_tar, read

NAMES = ("jpg", "txt", "json")
ENTRIES = [(f"{i}.{name}", b"%d" % i * (700 if name == "jpg" else 60)) for i in range(20) for name in NAMES]


def members_of(samples):
    return [(sample.key, sample.extensions, sample.offset, sample.size) for sample in samples]


def zeroed(data, start, stop):
    return data[:start] + bytes(stop - start) + data[stop:]


@pytest.fixture(scope="module")
def whole():
    return make_tar(ENTRIES)


class TestEndOfArchive:
    @pytest.mark.parametrize("size", [0, 1, 400, 9_000])
    def test_python(self, size):
        assert read(make_tar([("a.jpg", b"x" * size)]))[1] == []

    @pytest.mark.parametrize("size", [0, 700])
    def test_two_blocks(self, size):
        """As Go, Rust and this project write it."""
        data = make_tar([("a.jpg", b"x" * size)])
        assert read(data[: 512 + -(-size // 512) * 512] + END_OF_ARCHIVE)[1] == []

    @pytest.mark.skipif(shutil.which("tar") is None, reason="needs tar")
    @pytest.mark.parametrize("options", [["-b1"], ["-b20"], ["-b32"], ["-b128"], ["-b2048"], ["-Hposix"]])
    def test_gnu_tar(self, tmp_path, options):
        (tmp_path / "a.jpg").write_bytes(b"x" * 3_000)
        data = subprocess.run(
            ["tar", *options, "-cf", "-", "a.jpg"], cwd=tmp_path, stdout=subprocess.PIPE, check=True
        ).stdout
        samples, rejected = read(data)
        assert [sample.key for sample in samples] == ["a"] and not rejected

    @pytest.mark.parametrize("size", [0, 8_192, 50_000])
    def test_streamed(self, size):
        """As WebDataset's TarWriter and img2dataset write it."""
        sink, info = io.BytesIO(), tarfile.TarInfo("a.jpg")
        info.size = size
        with tarfile.open(fileobj=sink, mode="w|") as tar:
            tar.addfile(info, io.BytesIO(bytes(size)))
        samples, rejected = read(sink.getvalue())
        assert [sample.key for sample in samples] == ["a"] and not rejected

    @pytest.mark.parametrize("size", [1_024, 10_240])
    def test_archives_without_members(self, size):
        assert read(bytes(size)) == ([], [])

    @pytest.mark.parametrize("start", [512, 5_120, 9_216, 9_728, 10_240, 102_400])
    def test_no_more_than_one_record_is_padding(self, start):
        size = -(-(start + 1_024) // 10_240) * 10_240
        assert is_end_of_archive(start, size)
        assert not is_end_of_archive(start, size + 10_240) and not is_end_of_archive(start, size + 512)


class TestFaults:
    @pytest.mark.parametrize("size", [1, 511, 512, 2_048, 10_239, 10_752, 20_480, 65_536, 1 << 20])
    def test_a_file_of_zeros(self, size):
        assert [(f.key, f.reason) for f in read(bytes(size))[1]] == [("", rejects.TAR_ZEROS)]

    @pytest.mark.parametrize("more", [512, 10_240, 100_000, 1 << 20])
    def test_zeros_beyond_the_end(self, whole, more):
        samples, rejected = read(whole + bytes(more))
        assert samples == read(whole)[0] and [f.reason for f in rejected] == [rejects.TAR_ZEROS]

    @pytest.mark.parametrize(
        ("start", "stop", "lost"),
        [
            ("header 0", "header 1", "0"),
            ("header 1", "header 3", "12"),
            ("in header 1", "header 2", "1"),
            ("header 1", "in data 2", "12"),
            ("last data 1", "header 3", "12"),
            ("in data 1", "in data 3", "123"),
        ],
    )
    def test_a_hole(self, whole, start, stop, lost):
        """Each hole is one reject, and the complete samples on both sides of it survive."""
        before = read(whole)[0]

        def locate(text):
            *place, number = text.split()
            at = before[int(number)].offset
            last = before[int(number)].size - 512
            return at + {"header": 0, "in header": 100, "in data": 700, "last data": last}[" ".join(place)]

        samples, rejected = read(zeroed(whole, locate(start), locate(stop)))
        intact = [sample for sample in samples if len(sample.extensions) == 3]
        assert "".join(s.key for s in before if s not in intact) == lost
        reason = rejects.TAR_CORRUPT if start == "in header 1" else rejects.TAR_ZEROS
        assert [fault.reason for fault in rejected] == [reason]

    def test_zeros_to_the_end(self, whole):
        before = read(whole)[0]
        samples, rejected = read(zeroed(whole, before[3].offset, len(whole)))
        assert samples == before[:3]
        at = before[3].offset
        detail = f"zeros from byte {at} to the end at byte {len(whole)}"
        assert rejected == [Reject("", rejects.TAR_ZEROS, detail)]

    def test_a_hole_that_begins_in_a_sample_is_a_reject_with_its_key(self, whole):
        before = read(whole)[0]
        samples, rejected = read(zeroed(whole, before[3].offset - 512, len(whole)))
        assert samples == before[:2] and [fault.key for fault in rejected] == ["2"]

    @pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    @pytest.mark.parametrize("blocks", [(0, 1), (1, 2), (0, 2), (1, 3), (2, 3)])
    def test_a_hole_in_a_long_name(self, format, blocks):
        """The next member never gets the lost member's name, and no name is cut without a reject."""
        name = "x" * 300 + ".jpg"
        data = make_tar([("a.jpg", b"1"), (name, b"2"), ("b.jpg", b"3")], format)
        low, high = (1_024 + 512 * block for block in blocks)
        samples, rejected = read(zeroed(data, low, high))
        assert rejected
        assert {sample.key: sample.members["jpg"] for sample in samples if sample.key in "ab"} == {
            "a": b"1",
            "b": b"3",
        }


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(0, 2_000), min_size=1, max_size=8),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.booleans(),
    st.data(),
)
def test_a_run_of_zeros_is_reported_or_leaves_all_samples_intact(sizes, format, is_long, data):
    """Excepted: zeros up to the end, where the rest is what a tar program writes for fewer members."""
    stem = "long" * 40 if is_long else ""
    names = [f"{stem}{i // 2}.{NAMES[i % 2]}" for i in range(len(sizes))]
    whole = make_tar([(name, b"x" * size) for name, size in zip(names, sizes, strict=True)], format)
    blocks = len(whole) // BLOCK
    unit = data.draw(st.sampled_from([1, BLOCK]))
    start = data.draw(st.integers(0, (blocks - 1) * BLOCK // unit)) * unit
    length = data.draw(st.integers(BLOCK // unit, max(BLOCK, len(whole) - start) // unit)) * unit
    changed = zeroed(whole, start, min(start + length, len(whole)))
    samples, rejected = read(changed)
    if rejected:
        assert all(fault.reason in (rejects.TAR_ZEROS, rejects.TAR_CORRUPT) for fault in rejected)
        return
    before = members_of(read(whole)[0])
    found = members_of(samples)
    if found != before:
        content = len(changed.rstrip(b"\0"))
        assert len(changed) - content < 10_240 + 2 * BLOCK + BLOCK
        assert start + length >= len(whole.rstrip(b"\0"))


def test_zeros_are_found_through_streams_of_short_reads_and_on_s3(whole, tmp_path, s3):
    changed = zeroed(whole, 3_000, 9_000)
    bucket = s3.make_bucket("zeros")
    store.write_bytes(f"{bucket}/0.tar", changed)
    expected = list(TarReader(io.BytesIO(changed)))
    with store.open_read(f"{bucket}/0.tar") as stream:
        assert list(TarReader(stream)) == expected
    assert sum(isinstance(item, Reject) for item in expected) == 1
    assert sum(isinstance(item, TarSample) for item in expected) > 10
