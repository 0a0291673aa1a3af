"""Embeddings that stay in the input: the bits of a copy, and every change of the input is noticed."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from d2prune.embed.tables.importer import ImportParams, ImportWorker, plan
from d2prune.errors import UserError
from d2prune.graph.previous import _identify
from d2prune.inputs.find import find_input
from d2prune.inputs.tables.column_names import WantedColumns, resolve_columns
from d2prune.inputs.tables.files import TableFile, group_files, pool_identity, split_tables
from d2prune.inputs.tables.matrices import Matrix
from d2prune.inputs.tables.schema_check import check_files, find_dimension
from d2prune.inputs.tables.source import TableSource
from d2prune.parts import shard_urls
from d2prune.parts.features import read_embeddings
from d2prune.parts.files import EMBEDDINGS, SAMPLES
from d2prune.parts.in_place import find_in_place
from d2prune.parts.reader import Parts
from d2prune.store import FileInfo
from d2prune.store.ranges import open_ranges
from d2prune.store.urls import make_relative, resolve_relative

WIDTH = 6


def import_pool(pool, work, share=1 << 30):
    """Import a pool as a run does; return its parts, and how many files had to be copied."""
    files = find_input(str(pool))
    columns = resolve_columns(files, WantedColumns())
    params = ImportParams(columns, find_dimension(files, columns))
    copied = check_files(files, columns, (), params.dimension)
    shards = split_tables(files, share)
    worker = ImportWorker(str(work / "embed"), params)
    receipts = [worker(unit) for unit in plan(shards, params)]
    shard_urls.record(str(work), "e", shards)
    return Parts(str(work), {"embed": receipts}, "e"), copied


def write_pool(folder: Path, image, text, score, layout: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    table = {
        "uid": [f"{row:032x}" for row in range(len(score))],
        "text": ["x"] * len(score),
        "clip_l14_similarity_score": score,
    }
    if layout == "lists":
        table["l14_img"], table["l14_txt"] = (
            pa.array(list(side.astype(side.dtype.newbyteorder("=")))) for side in (image, text)
        )
    pq.write_table(pa.table(table), folder / "a.parquet")
    if layout == "npy":
        np.save(folder / "a.l14_img.npy", image)
        np.save(folder / "a.l14_txt.npy", text)
    elif layout != "lists":
        save = np.savez if layout == "npz" else np.savez_compressed
        save(folder / "a.npz", l14_img=image, l14_txt=text)
    return folder


@pytest.fixture
def pool(tmp_path):
    rng = np.random.default_rng(0)
    image, text = (rng.standard_normal((60, WIDTH)).astype(np.float16) for _ in range(2))
    return write_pool(tmp_path / "pool", image, text, rng.random(60), "npz")


def overwrite(path, keep_time):
    before, data = path.stat(), bytearray(path.read_bytes())
    # A byte of an array that is read, not of a header.
    data[len(data) * 3 // 5] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + (0 if keep_time else 1000)))


CHANGES = {
    "longer": (
        lambda path: path.write_bytes(path.read_bytes() + b"x"),
        r"found \d+ bytes; expected \d+ bytes",
    ),
    "shorter": (
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        r"found \d+ bytes; expected \d+ bytes",
    ),
    "empty": (lambda path: path.write_bytes(b""), r"found 0 bytes; expected \d+ bytes"),
    "touched": (lambda path: os.utime(path, (1, 1)), r"found \d+ bytes, version \S+; expected \d+ bytes, v"),
    "other bytes": (
        lambda path: overwrite(path, False),
        r"version \S+; expected \d+ bytes, version \S+; run",
    ),
    "deleted": (Path.unlink, r"not found; expected \d+ bytes, as when its embeddings were imported"),
    "moved": (lambda path: path.rename(path.with_suffix(".old")), "not found; expected"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "found a folder; expected a file"),
    "other bytes, same time": (
        lambda path: overwrite(path, True),
        "though size and version are the same: found checksum [0-9a-f]{64} of rows 0 to 59; expected ",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_the_input_is_one_line(pool, tmp_path, change):
    parts, _ = import_pool(pool, tmp_path / "work")
    make, message = CHANGES[change]
    make(pool / "a.npz")
    readers = {
        "part": lambda: read_embeddings(parts, 0, EMBEDDINGS, "image+text"),
        "rows": lambda: parts.take_vectors(np.array([3, 1])),
    }
    if change == "other bytes, same time":
        # Rows alone have no checksum.
        del readers["rows"]
    for read in readers.values():
        with pytest.raises(UserError, match=message) as caught:
            read()
        assert str(pool / "a.npz") in str(caught.value) and "\n" not in str(caught.value)
        assert caught.value.exit_code == 2


def test_a_side_that_is_not_read_may_be_missing(pool, tmp_path):
    image, text = (np.load(pool / "a.npz")[name] for name in ("l14_img", "l14_txt"))
    parts, _ = import_pool(
        write_pool(tmp_path / "npy", image, text, np.arange(60.0), "npy"), tmp_path / "work"
    )
    (tmp_path / "npy" / "a.l14_txt.npy").unlink()
    assert len(read_embeddings(parts, 0, EMBEDDINGS, "image")) == 60
    with pytest.raises(UserError, match=r"a\.l14_txt\.npy: not found"):
        read_embeddings(parts, 0, EMBEDDINGS, "image+text")


def test_a_lost_record_of_urls_is_one_line(pool, tmp_path):
    parts, _ = import_pool(pool, tmp_path / "work")
    (tmp_path / "work" / "embed" / "e" / "sources.json").unlink()
    with pytest.raises(UserError, match=r"sources\.json: found no URL of the table a; expected the one"):
        parts.take_vectors(np.array([0]))


def test_receipts_hold_no_path(pool, tmp_path):
    parts, _ = import_pool(pool, tmp_path / "work")
    (receipt,) = parts.units("embed")
    assert find_in_place(receipt).arrays["image_emb"].file == "a.npz"
    for name in ("receipt.json", SAMPLES):
        (path,) = (tmp_path / "work").rglob(name)
        assert str(pool).encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("table", "array", "relative"),
    [
        ("/a/b/0.parquet", "/a/b/0.npz", "0.npz"),
        ("/a/metadata/metadata_0.parquet", "/a/img_emb/img_emb_0.npy", "../img_emb/img_emb_0.npy"),
        ("s3://b/0.parquet", "s3://b/0.npz", "0.npz"),
        ("s3://b/x//m/0.parquet", "s3://b/x//i/0 %?.npy", "../i/0 %?.npy"),
        ("0.parquet", "0.npz", "0.npz"),
        ("/a/0.parquet", "/b/c/0.npz", "../b/c/0.npz"),
    ],
)
def test_relative_urls(table, array, relative):
    assert make_relative(array, table) == relative and resolve_relative(relative, table) == array


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3://bucket/a.npy", None),
        ("https://host/a.npy", None),
        ("https://host/a.npy?X-Amz-Signature=abc", "a query or a credential"),
        ("https://me:secret@host/a.npy", "a query or a credential"),
    ],
)
def test_arrays_whose_url_cannot_be_stored_are_copied(url, reason):
    file = FileInfo(url, 10, "v")
    table = TableFile(FileInfo("https://host/a.parquet", 1, "v"), "a", None, {"image_emb": file})
    matrix = Matrix(1, 1, "<f2", lambda first, stop: np.zeros((1, 1)), file, 8)
    why = TableSource(table, None, None).why_copied("image_emb", matrix)
    assert (why is None) if reason is None else (reason in why and "abc" not in why and "secret" not in why)
    inflated = dataclasses.replace(matrix, offset=None)
    assert "is compressed" in TableSource(table, None, None).why_copied("image_emb", inflated)


@pytest.mark.parametrize("name", ["password=abcd1234", "minioadmin-data", "sig=abcdefgh"])
@pytest.mark.parametrize("is_folder", [True, False])
@pytest.mark.parametrize("layout", ["npz", "npy"])
def test_a_path_that_looks_like_a_secret_is_read_in_place(
    tmp_path, pool, monkeypatch, name, is_folder, layout
):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "minioadmin")
    image, text = (np.load(pool / "a.npz")[side] for side in ("l14_img", "l14_txt"))
    folder = write_pool(tmp_path / (name if is_folder else "plain"), image, text, np.arange(60.0), layout)
    if not is_folder:
        for path in list(folder.iterdir()):
            path.rename(path.with_name(name + path.name.removeprefix("a")))
    parts, copied = import_pool(folder, tmp_path / "work")
    assert not copied and parts.vector_sides(EMBEDDINGS) == ["image_emb", "text_emb"]
    assert len(parts.take_vectors(np.arange(60))[0]) == 60


def test_another_artifact_once_the_urls_cannot_be_recorded():
    def identify(query):
        files = [FileInfo(f"https://host/a{end}{query}", 1, "v") for end in (".parquet", ".npz")]
        return pool_identity(split_tables(group_files(files[:1], files[1:]), 10))

    signed = [identify(f"?X-Amz-Signature={digit * 64}") for digit in "12"]
    assert signed[0] == signed[1] != identify("")


def test_an_error_of_the_block_is_not_one_of_the_input(pool):
    (file,) = find_input(str(pool))
    with pytest.raises(FileNotFoundError, match="work_dir"), open_ranges(file.table):
        raise FileNotFoundError("work_dir")
    with open_ranges(file.table) as read:
        assert read(0, 4) == b"PAR1"


def test_no_positions_have_the_width_of_the_arrays(pool, tmp_path):
    parts, _ = import_pool(pool, tmp_path / "work")
    found = parts.take_vectors(np.zeros(0, np.int64))
    assert [(side.shape, side.dtype) for side in found] == [((0, WIDTH), np.float16)] * 2


def test_parts_without_a_fingerprint_are_a_defect_of_the_caller(pool, tmp_path):
    parts, _ = import_pool(pool, tmp_path / "work")
    with pytest.raises(ValueError, match="without the fingerprint"):
        Parts(str(tmp_path / "work"), {"embed": parts.units("embed")}).take_vectors(np.array([0]))


@pytest.mark.parametrize("rejected", [(), (7,)])
def test_a_touched_array_is_the_same_part_for_an_increment(tmp_path, rejected):
    rng = np.random.default_rng(0)
    image, text = (rng.standard_normal((20, WIDTH)).astype(np.float16) for _ in range(2))
    score = np.arange(20.0)
    score[list(rejected)] = np.nan
    folder = write_pool(tmp_path / "pool", image, text, score, "npy")

    def identify():
        (receipt,) = import_pool(folder, tmp_path / "work")[0].units("embed")
        return receipt.key, _identify(receipt, EMBEDDINGS)

    first = identify()
    os.utime(folder / "a.l14_img.npy", (1, 1))
    touched = identify()
    assert touched[0] != first[0] and touched[1] == first[1]
    score[3] = np.nan
    write_pool(tmp_path / "pool", image, text, score, "npy")
    fewer = identify()[1]
    overwrite(folder / "a.l14_txt.npy", keep_time=False)
    assert len({first[1], fewer, identify()[1]}) == 3
