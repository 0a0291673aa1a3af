"""Written headers are read back by tarfile and our reader, and depend on name and size alone."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2prune.inputs.tar.reader import TarReader
from d2prune.inputs.tar.write import END_OF_ARCHIVE, MODIFIED, member_header, padding

names = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=150
).filter(lambda name: not name.endswith("/"))


@given(st.lists(st.tuples(names, st.binary(max_size=1100)), max_size=5))
def test_tarfile_reads_the_members(members):
    data = b"".join(member_header(name, len(p)) + p + padding(len(p)) for name, p in members) + END_OF_ARCHIVE
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        infos = tar.getmembers()
        assert [(info.name, tar.extractfile(info).read()) for info in infos] == members
        assert {(info.mtime, info.mode, info.uid, info.gid) for info in infos} <= {(MODIFIED, 0o644, 0, 0)}


@pytest.mark.parametrize("length", [1, 99, 100, 101, 996, 997, 998, 9990, 9995])
def test_long_names_are_read_back(length):
    name = "a" * length + ".jpg"
    data = member_header(name, 3) + b"abc" + padding(3) + END_OF_ARCHIVE
    (sample,) = TarReader(io.BytesIO(data))
    assert (sample.key, sample.members) == ("a" * length, {"jpg": b"abc"})


def test_size_beyond_the_octal_field_is_read_back():
    with tarfile.open(fileobj=io.BytesIO(member_header("a", 8**11 + 5) + END_OF_ARCHIVE)) as tar:
        assert tar.next().size == 8**11 + 5


@pytest.mark.parametrize(("name", "size"), [("", 1), ("a\0b", 1), ("a", -1)])
def test_invalid_name_or_size_is_an_error(name, size):
    with pytest.raises(ValueError, match="expected a name without NUL"):
        member_header(name, size)
