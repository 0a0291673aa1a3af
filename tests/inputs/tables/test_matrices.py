"""Row ranges equal what numpy loads; anything but a float matrix is a one-line error that names the file."""

import contextlib
import io
import itertools
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune import store
from d2prune.errors import UserError
from d2prune.inputs.tables.matrices import open_npy, open_npz


def info(path):
    return store.info(str(path))


@contextlib.contextmanager
def open_array(file, name):
    with open_npz(file) as arrays, arrays.open(name) as matrix:
        yield matrix


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_npz_ranges_equal_the_rows_that_numpy_loads(save, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("npz") / "x.npz"
    arrays = {}
    for name in data.draw(st.lists(st.sampled_from(["l14_img", "b32_txt", "ä"]), min_size=1, unique=True)):
        shape = (data.draw(st.integers(0, 40)), data.draw(st.integers(1, 9)))
        dtype = data.draw(st.sampled_from(["<f2", "<f4", ">f4", "<f8"]))
        arrays[name] = np.random.default_rng(len(arrays)).standard_normal(shape).astype(dtype)
    save(path, **arrays)
    with open_npz(info(path)) as opened:
        assert opened.names == list(arrays)
    with np.load(path) as expected:
        for name in arrays:
            with open_array(info(path), name) as matrix:
                assert (matrix.rows, matrix.columns) == expected[name].shape
                cuts = sorted(data.draw(st.lists(st.integers(0, matrix.rows), max_size=4)))
                for start, stop in itertools.pairwise(cuts):
                    rows = matrix.read(start, stop)
                    assert rows.dtype.isnative
                    np.testing.assert_array_equal(rows, expected[name][start:stop])


@pytest.mark.parametrize("count", [0, 1, 300])
def test_npy_ranges_equal_the_saved_rows(tmp_path, count):
    rows = np.random.default_rng(0).standard_normal((count, 5)).astype(np.float16)
    np.save(tmp_path / "x.npy", rows)
    with open_npy(info(tmp_path / "x.npy")) as matrix:
        assert matrix.read(0, count).tobytes() == rows.tobytes()
        assert matrix.read(count // 2, count).tobytes() == rows[count // 2 :].tobytes()


def test_zip_with_a_prefix_and_long_extra_fields_is_read(tmp_path):
    """The local header may differ from the directory's in length, and bytes may come before the archive."""
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    sink = io.BytesIO()
    np.save(sink, rows)
    with open(tmp_path / "x.npz", "wb") as file:
        file.write(b"prefix")
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            member = zipfile.ZipInfo("a.npy")
            member.extra = b"\x99\x99\x04\x00abcd"
            archive.writestr(member, sink.getvalue())
    with open_array(info(tmp_path / "x.npz"), "a") as matrix:
        np.testing.assert_array_equal(matrix.read(1, 3), rows[1:3])


def npy_bytes(array):
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            npy_bytes(np.ones((4, 3), np.float16))[:-2],
            "22 bytes for float16 (4, 3); the file is damaged or truncated",
        ),
        (npy_bytes(np.ones((4, 3)))[:20], "not an array"),
        (b"", "not an array"),
        (b"PAR1 something else", "not an array"),
        (npy_bytes(np.ones((4, 3), np.int64)), "int64 (4, 3); expected floats [rows, dimensions]"),
        (npy_bytes(np.ones(4)), "float64 (4,); expected floats"),
        (npy_bytes(np.ones((4, 0))), "expected floats"),
        (npy_bytes(np.ones((2, 3, 4))), "float64 (2, 3, 4); expected floats"),
        (npy_bytes(np.array([[{}]], object)), "found pickled objects, which are never loaded"),
        (npy_bytes(np.asfortranarray(np.ones((4, 3)))), "Fortran"),
        (npy_bytes(np.ones((1, 1)))[:6] + b"\x09\x00" + npy_bytes(np.ones((1, 1)))[8:], "array format 9.0"),
    ],
)
def test_file_that_is_not_a_float_matrix_is_a_one_line_error(tmp_path, data, message):
    (tmp_path / "bad.npy").write_bytes(data)
    np.savez(tmp_path / "good.npz", a=np.ones((2, 2)))
    with pytest.raises(UserError) as caught, open_npy(info(tmp_path / "bad.npy")):
        pass
    assert str(tmp_path / "bad.npy") in str(caught.value) and message in str(caught.value)
    assert "\n" not in str(caught.value)
    with zipfile.ZipFile(tmp_path / "bad.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", data)
    with pytest.raises(UserError) as caught, open_array(info(tmp_path / "bad.npz"), "a"):
        pass
    assert f"{tmp_path}/bad.npz: a" in str(caught.value) and message in str(caught.value)


def test_pickled_array_is_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "boom"), "w"))

    np.save(tmp_path / "x.npy", np.array([[Bomb()]], object), allow_pickle=True)
    with pytest.raises(UserError, match="pickled"), open_npy(info(tmp_path / "x.npy")):
        pass
    assert not (tmp_path / "boom").exists()


def test_damaged_archive_is_a_user_error(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, l14_img=np.ones((50, 3), np.float16))
    whole = path.read_bytes()
    with (
        pytest.raises(UserError, match=r"x\.npz: no array l14_txt; found l14_img"),
        open_array(info(path), "l14_txt"),
    ):
        pass
    path.write_bytes(whole[:-30])
    with (
        pytest.raises(UserError, match=r"x\.npz: not an \.npz file, or truncated"),
        open_array(info(path), "l14_img"),
    ):
        pass
    path.write_bytes(b"XX" + whole[2:])
    with pytest.raises(UserError, match="damaged"), open_array(info(path), "l14_img"):
        pass
    np.savez_compressed(path, l14_img=np.random.default_rng(0).standard_normal((5000, 30)))
    packed = bytearray(path.read_bytes())
    packed[2000:2100] = bytes(100)
    path.write_bytes(packed)
    with (
        pytest.raises(UserError, match="l14_img: cannot be decompressed"),
        open_array(info(path), "l14_img") as matrix,
    ):
        matrix.read(0, 5000)


def test_file_changed_or_deleted_after_listing_is_a_user_error(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.ones((2, 2)))
    listed = info(path)
    np.save(path, np.ones((3, 2)))
    with pytest.raises(UserError, match="changed since this run began"), open_npy(listed):
        pass
    path.unlink()
    with (
        pytest.raises(UserError, match="not found; expected 160 bytes, as when this run began"),
        open_npy(listed),
    ):
        pass
