"""The tar reader against Python's tarfile as the oracle: intact, truncated at any byte, and damaged."""

import io
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d2prune.inputs import rejects
from d2prune.inputs.rejects import Reject
from d2prune.inputs.tar.header import parse_header, split_name
from d2prune.inputs.tar.reader import TarReader, TarSample, parse_sample

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def make_tar(members, format=tarfile.GNU_FORMAT, others=()):
    """Return a tar of (name, payload) pairs, with the TarInfos in `others` before them."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=format) as tar:
        for info in others:
            tar.addfile(info)
        for name, payload in members:
            info = tarfile.TarInfo(name)
            info.size = len(payload)
            tar.addfile(info, io.BytesIO(payload))
    return sink.getvalue()


def read(data, **options):
    reader = TarReader(io.BytesIO(data), **options)
    events = list(reader)
    assert reader.bytes_read == len(data)
    return [e for e in events if isinstance(e, TarSample)], [e for e in events if isinstance(e, Reject)]


def oracle(data):
    """Return (key, {extension: payload}, [tarinfo]) of each run of members with one key, by tarfile."""
    groups = []
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="backslashreplace") as tar:
        for info in tar:
            if not info.isreg():
                continue
            folder, _, base = info.name.rpartition("/")
            stem, dot, extension = base.partition(".")
            if not dot or not stem:
                continue
            key = f"{folder}/{stem}" if "/" in info.name else stem
            extension = extension.lower()
            if not groups or groups[-1][0] != key or extension in groups[-1][1]:
                groups.append((key, {}, []))
            groups[-1][1][extension] = tar.extractfile(info).read()
            groups[-1][2].append(info)
    return groups


segment = st.text(
    st.characters(exclude_characters="/\0.", exclude_categories=["Cs"]), min_size=1, max_size=12
)
folder = st.lists(segment | st.just("deep" * 30), max_size=3).map(
    lambda parts: "".join(f"{p}/" for p in parts)
)
stem = segment | st.just("long" * 40) | st.sampled_from(["0001", "図像", "__x", "a b"])
extensions = st.lists(
    st.sampled_from(["jpg", "JPG", "txt", "Txt", "json", "cls.txt", "png", "npz"]), min_size=1, max_size=4
)
payload = st.binary(max_size=40) | st.sampled_from([b"x" * 511, b"x" * 512, b"x" * 513, b"x" * 2000])
sample = st.tuples(folder, stem, extensions)


@st.composite
def members(draw, max_samples=6):
    found = []
    for prefix, name, exts in draw(st.lists(sample, max_size=max_samples)):
        found.extend((f"{prefix}{name}.{ext}", draw(payload)) for ext in exts)
    return [(name, data) for name, data in found if not name.startswith("__")]


@given(members(), st.sampled_from(FORMATS[1:]))
@settings(max_examples=150, deadline=None)
def test_samples_equal_those_of_tarfile(entries, format):
    data = make_tar(entries, format)
    samples, rejected = read(data)
    assert not rejected
    assert [(s.key, s.members) for s in samples] == [(key, found) for key, found, _ in oracle(data)]


@given(members(), st.sampled_from(FORMATS[1:]))
@settings(max_examples=100, deadline=None)
def test_byte_range_covers_the_complete_sample(entries, format):
    data = make_tar(entries, format)
    samples, _ = read(data)
    for found, (_, expected, infos) in zip(samples, oracle(data), strict=True):
        assert found.offset == infos[0].offset
        assert found.offset + found.size == infos[-1].offset_data + -(-infos[-1].size // 512) * 512
        piece = data[found.offset : found.offset + found.size]
        assert {m.extension: bytes(m.payload) for m in parse_sample(piece)} == expected
        # The range plus an end mark is a valid tar.
        with tarfile.open(fileobj=io.BytesIO(piece + bytes(1024))) as tar:
            assert len(tar.getmembers()) == len(infos)


@given(members(max_samples=4), st.sampled_from(FORMATS[1:]), st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.data_too_large])
def test_samples_before_a_truncation_survive(entries, format, data):
    whole = make_tar(entries, format)
    cut = data.draw(st.integers(0, len(whole)))
    before, _ = read(whole)
    samples, rejected = read(whole[:cut])
    survivors = [s for s in before if s.offset + s.size <= cut]
    assert samples[: len(survivors)] == survivors or (
        # Only the last sample may lack members, which follow the cut and cannot be known.
        samples[: len(survivors) - 1] == survivors[:-1]
    )
    assert len(samples) + len(rejected) <= len(survivors) + 2
    # A cut between two blocks of the padding leaves zeros that no tar program writes.
    expected = (rejects.TAR_TRUNCATED, rejects.TAR_EMPTY, rejects.TAR_ZEROS)
    assert all(f.reason in expected for f in rejected)
    assert len(rejected) <= 1


def test_truncation_at_every_byte_costs_one_reject():
    names = [f"{i:03d}.{ext}" for i in range(3) for ext in ("jpg", "txt", "json")]
    whole = make_tar([(name, name.encode() * 60) for name in names])
    before, _ = read(whole)
    for cut in range(len(whole)):
        samples, rejected = read(whole[:cut])
        intact = [s for s in before if s.offset + s.size <= cut]
        assert samples[: len(intact)] == intact, cut
        next_start = before[len(intact)].offset if len(intact) < 3 else len(whole)
        if cut > next_start and cut % 512:
            rest = samples[len(intact) :]
            assert len(rejected) + len(rest) >= 1, cut
            # A truncated sample is one reject, never a reject beside a sample that lacks members,
            # unless the cut leaves not even a name.
            if rejected:
                assert not rest or cut % 512 <= len("000"), cut


@given(
    members(max_samples=4),
    st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=600)), max_size=4),
)
@settings(max_examples=200, deadline=None)
def test_overwritten_bytes_never_raise(entries, patches):
    data = bytearray(make_tar(entries))
    for position, junk in patches:
        at = position % len(data)
        data[at : at + len(junk)] = junk[: len(data) - at]
    samples, rejected = read(bytes(data))
    for found in samples:
        parse_sample(bytes(data[found.offset : found.offset + found.size]))
    assert all(f.reason in rejects.MEANINGS for f in rejected)


@given(st.binary(max_size=3000))
@settings(max_examples=100, deadline=None)
def test_junk_files_never_raise(data):
    samples, _ = read(data)
    assert samples == []


class TestDamage:
    def pool(self):
        return make_tar([(f"{i}.{ext}", b"%d" % i * 700) for i in range(5) for ext in ("jpg", "txt")])

    def test_empty_file_is_one_reject(self):
        assert [f.reason for f in read(b"")[1]] == [rejects.TAR_EMPTY]

    def test_tar_without_members_has_no_rejects(self):
        assert read(make_tar([])) == ([], [])

    def test_missing_end_mark_is_reported_but_not_rejected(self):
        data = self.pool().rstrip(b"\0")
        data += bytes(-len(data) % 512)
        reader = TarReader(io.BytesIO(data))
        assert len([e for e in reader if isinstance(e, TarSample)]) == 5
        assert not reader.end_mark

    def test_bad_header_is_one_reject_and_other_members_survive(self):
        before, _ = read(self.pool())
        data = bytearray(self.pool())
        data[before[2].offset : before[2].offset + 40] = b"\xff" * 40
        samples, rejected = read(bytes(data))
        assert [f.reason for f in rejected] == [rejects.TAR_CORRUPT]
        assert f"no valid header at byte {before[2].offset};" in rejected[0].detail
        assert [s.key for s in samples] == ["0", "1", "2", "3", "4"]
        assert [sorted(s.members) for s in samples] == [["jpg", "txt"]] * 2 + [["txt"]] + [["jpg", "txt"]] * 2

    def test_samples_after_missing_bytes_are_found(self):
        before, _ = read(self.pool())
        data = self.pool()
        at = before[1].offset + 600
        samples, rejected = read(data[:at] + data[at + 77 :])
        assert [f.reason for f in rejected] == [rejects.TAR_CORRUPT]
        assert [s.key for s in samples if len(s.members) == 2] == ["0", "2", "3", "4"]

    def test_concatenated_tars_are_read_to_the_end_and_their_seam_is_one_reject(self):
        samples, rejected = read(self.pool() + self.pool())
        assert [f.reason for f in rejected] == [rejects.TAR_ZEROS]
        assert [s.key for s in samples] == ["0", "1", "2", "3", "4"] * 2

    def test_gzip_is_mentioned_in_the_detail(self):
        assert "gzip" in read(b"\x1f\x8b\x08" + bytes(range(256)) * 8)[1][0].detail

    def test_too_large_member_is_skipped(self):
        data = make_tar([("a.jpg", b"x" * 5000), ("a.txt", b"t"), ("b.jpg", b"y")])
        samples, rejected = read(data, max_member_bytes=4999)
        assert not rejected
        assert samples[0].members == {"txt": b"t"} and samples[0].too_large == {"jpg": 5000}
        assert samples[1].members == {"jpg": b"y"}

    def test_size_beyond_the_end_is_a_truncation(self):
        data = bytearray(make_tar([("a.jpg", b"x")]))
        data[124:136] = b"\x80" + (1 << 70).to_bytes(11, "big")
        data[148:156] = b"        "
        data[148:156] = b"%06o\0 " % sum(data[:512])
        samples, rejected = read(bytes(data))
        assert samples == [] and [(f.key, f.reason) for f in rejected] == [("a", rejects.TAR_TRUNCATED)]

    def test_malformed_pax_records_are_one_reject(self):
        data = make_tar([("é" * 80 + ".jpg", b"x"), ("b.jpg", b"y")], tarfile.PAX_FORMAT).replace(
            b"path=", b"path~"
        )
        samples, rejected = read(data)
        assert [f.reason for f in rejected] == [rejects.TAR_CORRUPT]
        assert samples[-1].key == "b"


class TestGrouping:
    def test_unwanted_members_are_not_loaded_but_belong_to_the_range(self):
        data = make_tar([("a.jpg", b"x"), ("a.npz", b"n" * 900), ("b.jpg", b"y")])
        samples, _ = read(data, extensions=frozenset({"jpg"}))
        assert samples[0].members == {"jpg": b"x"}
        assert samples[0].size == samples[1].offset == 512 * 5

    def test_directories_and_links_are_skipped(self):
        directory, link = tarfile.TarInfo("d.ir/"), tarfile.TarInfo("l.jpg")
        directory.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "a.jpg"
        samples, rejected = read(make_tar([("a.jpg", b"x")], others=[directory, link]))
        assert not rejected and [s.key for s in samples] == ["a"]

    def test_mac_resource_forks_do_not_split_a_sample(self):
        samples, _ = read(
            make_tar([("./._a.jpg", b""), ("./a.jpg", b"x"), ("./._a.txt", b""), ("./a.txt", b"t")])
        )
        assert [(s.key, s.members) for s in samples] == [("./a", {"jpg": b"x", "txt": b"t"})]

    def test_names_that_are_not_utf8_stay_distinct(self):
        data = make_tar([("XY.jpg", b"1"), ("XZ.jpg", b"2")])
        data = data.replace(b"XY", b"\xffY").replace(b"XZ", b"\xfeY")
        fixed = bytearray(data)
        for at in (0, 1024):
            fixed[at + 148 : at + 156] = b" " * 8
            fixed[at + 148 : at + 156] = b"%06o\0 " % sum(fixed[at : at + 512])
        samples, _ = read(bytes(fixed))
        assert [s.key for s in samples] == ["\\xffY", "\\xfeY"]

    def test_ustar_prefix_belongs_to_the_name(self):
        name = "/".join(["folder" * 5] * 5) + "/a.jpg"
        samples, _ = read(make_tar([(name, b"x")], tarfile.USTAR_FORMAT))
        assert samples[0].key == name[:-4]

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("a/b.c/000.tar.gz", ("a/b.c/000", "tar.gz")),
            ("000.JPG", ("000", "jpg")),
            ("noextension", None),
            ("a.b/noextension", None),
            ("a/.hidden", None),
            ("__meta__.json", ("__meta__", "json")),
            ("__meta__/x.json", None),
            ("__x.json", ("__x", "json")),
        ],
    )
    def test_key_is_the_path_up_to_the_first_dot(self, name, expected):
        assert split_name(name) == expected


def test_signed_checksums_are_accepted():
    block = bytearray(make_tar([("é.jpg", b"")])[:512])
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(b - 256 if b > 127 else b for b in block)
    assert parse_header(bytes(block)) is not None


def test_wrong_byte_range_is_an_error():
    with pytest.raises(ValueError, match="byte range"):
        parse_sample(b"x" * 700)


def test_short_reads_give_the_same_samples():
    class Dribble(io.RawIOBase):
        def __init__(self, data):
            self.inner = io.BytesIO(data)

        def read(self, size=-1):
            return self.inner.read(min(size, 7))

    data = make_tar([("a.jpg", b"x" * 5000), ("a.txt", b"t")])
    assert list(TarReader(Dribble(data))) == list(TarReader(io.BytesIO(data)))


def test_memory_is_bounded_for_a_tar_of_any_size():
    import tracemalloc

    class Endless(io.RawIOBase):
        """20 members of 50 MB, generated on the fly."""

        def __init__(self):
            self.chunks = self.make()
            self.rest = b""

        def make(self):
            for i in range(20):
                info = tarfile.TarInfo(f"{i}.jpg")
                info.size = 50 << 20
                yield info.tobuf()
                for _ in range(50):
                    yield bytes(1 << 20)

        def read(self, size=-1):
            self.rest = self.rest or next(self.chunks, b"")
            data, self.rest = self.rest[:size], self.rest[size:]
            return data

    tracemalloc.start()
    try:
        reader = TarReader(Endless(), max_member_bytes=1 << 20)
        assert [e.too_large for e in reader] == [{"jpg": 50 << 20}] * 20
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert reader.bytes_read == 20 * (512 + (50 << 20))
