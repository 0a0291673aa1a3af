"""What lies in a folder decides what it is; what does not belong together is one line that names it."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from d2prune.errors import UserError
from d2prune.inputs.find import find_input
from d2prune.inputs.shards import TarShard
from d2prune.inputs.tables.column_names import Columns, WantedColumns, resolve_columns
from d2prune.inputs.tables.files import TableFile, TableShard, pool_identity, split_tables
from tests.tables import make_rows, write_arrays, write_clip_retrieval, write_columns, write_datacomp

PARTS = [make_rows(5, seed) for seed in range(11)]


def tables(given) -> list[TableFile]:
    found = find_input(given)
    assert all(isinstance(file, TableFile) for file in found)
    return found


def columns(folder, **wanted) -> Columns:
    return resolve_columns(tables(str(folder))[0], WantedColumns(**wanted))


def test_datacomp_metadata(tmp_path):
    found = tables(str(write_datacomp(tmp_path, PARTS[:3])))
    assert [file.name for file in found] == ["00000000", "00000001", "00000002"]
    assert all(
        file.npz.url == file.table.url.replace(".parquet", ".npz") and not file.arrays for file in found
    )
    assert columns(tmp_path) == Columns(
        "l14_img",
        "l14_txt",
        "clip_l14_similarity_score",
        "uid",
        None,
        "text",
        "original_width",
        "original_height",
    )


def test_another_model_of_datacomp_brings_its_text_and_its_score(tmp_path):
    write_datacomp(tmp_path, PARTS[:1])
    found = columns(tmp_path, image_emb="b32_img")
    assert (found.image_emb, found.text_emb, found.clip_score) == (
        "b32_img",
        "b32_txt",
        "clip_b32_similarity_score",
    )
    assert columns(tmp_path, text_emb=None).embeddings == ("l14_img",)


def test_clip_retrieval_folders_in_the_order_of_their_numbers(tmp_path):
    found = tables(str(write_clip_retrieval(tmp_path, PARTS)))
    assert [file.name for file in found] == [f"metadata_{i}" for i in range(11)]
    assert found[10].arrays["img_emb"].url.endswith("img_emb/img_emb_10.npy")
    assert columns(tmp_path) == Columns(
        "img_emb", "text_emb", "similarity", "uid", "image_path", "caption", None, None
    )


def test_clip_retrieval_without_captions_embedded(tmp_path):
    write_clip_retrieval(tmp_path, PARTS[:2], text=False)
    assert columns(tmp_path).embeddings == ("img_emb",)


@pytest.mark.parametrize("write", [write_arrays, write_columns])
def test_arrays_beside_tables_and_tables_alone(tmp_path, write):
    write(tmp_path, PARTS[:2])
    assert [file.name for file in tables(str(tmp_path))] == ["part-0", "part-1"]
    assert columns(tmp_path) == Columns(
        "image_emb", "text_emb", "clip_score", "uid", None, "caption", None, None
    )


def test_a_lone_npy_holds_image_embeddings(tmp_path):
    pq.write_table(pa.table({"caption": ["a", "b"]}), tmp_path / "x.parquet")
    np.save(tmp_path / "x.npy", np.ones((2, 3)))
    found = columns(tmp_path)
    assert found.embeddings == ("image_emb",) and found.uid is None and found.clip_score is None


def test_names_globs_and_braces_bring_the_arrays_beside_them(tmp_path):
    write_datacomp(tmp_path / "a", PARTS[:3])
    write_arrays(tmp_path / "b", PARTS[:2])
    assert [file.name for file in tables(f"{tmp_path}/a/{{00000002,00000000}}.parquet")] == [
        "00000002",
        "00000000",
    ]
    assert all(file.npz for file in tables(f"{tmp_path}/a/*.parquet"))
    assert [len(file.arrays) for file in tables(f"{tmp_path}/b/part-?.parquet")] == [2, 2]
    found = tables([f"{tmp_path}/a/00000002.parquet", f"{tmp_path}/a/00000001.parquet"])
    assert [file.name for file in found] == ["00000002", "00000001"]


def test_tables_of_one_name_in_two_folders(tmp_path):
    for name in ("a", "b"):
        write_datacomp(tmp_path / name, PARTS[:1])
    assert [file.name for file in tables(str(tmp_path))] == ["a/00000000", "b/00000000"]


def test_tars_stay_tars_whatever_lies_beside_them(pool, tmp_path):
    folder = shutil.copytree(pool, tmp_path / "pool")
    pq.write_table(pa.table({"uid": ["x"]}), folder / "00000000.parquet")
    np.save(folder / "subset.npy", np.zeros(3))
    found = find_input(str(folder))
    assert len(found) == 4 and all(isinstance(shard, TarShard) for shard in found)


def break_npz_gone(folder):
    (folder / "00000001.npz").unlink()
    return str(folder)


def break_table_gone(folder):
    (folder / "00000001.parquet").unlink()
    return str(folder)


def break_stray_array(folder):
    np.save(folder / "stray.npy", np.zeros((2, 2)))
    return str(folder)


def break_two_layouts(folder):
    write_arrays(folder, PARTS[:1])
    return str(folder)


def break_tars(folder):
    (folder / "00000000.tar").write_bytes(bytes(1024))
    return str(folder)


def break_tar_in_list(folder):
    (folder.parent / "x.tar").write_bytes(bytes(1024))
    return [f"{folder.parent}/x.tar", f"{folder}/*.parquet"]


def break_twice(folder):
    return [str(folder), f"{folder}/00000000.parquet"]


def break_name(folder):
    return f"{folder}/00000007.parquet"


def break_other_files(folder):
    shutil.rmtree(folder)
    folder.mkdir()
    for name in ("a.jpg", "b.jpg", "c.json"):
        (folder / name).write_bytes(b"x")
    return str(folder)


def break_folder_gone(folder):
    return f"{folder}/none"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (break_npz_gone, "00000001.parquet has no meta/00000001.npz; other tables have one: meta/00000000.npz"),
        (break_table_gone, "00000001.npz has no table beside it; expected meta/00000001.parquet"),
        (break_stray_array, "stray.npy has no table beside it; expected meta/stray.parquet"),
        (break_two_layouts, "found DataComp's metadata and arrays beside tables; expected one layout per run"),
        (
            break_tars,
            "found tars and tables of embeddings (3 .parquet, 3 .npz, 1 .tar); expected one kind per run",
        ),
        (break_tar_in_list, "found tars and tables of embeddings"),
        (break_twice, "00000000.parquet would be read twice"),
        (break_name, "00000007.parquet: does not exist"),
        (break_other_files, "found 2 .jpg, 1 .json; expected tars; NAME.parquet with NAME.npz beside it"),
        (break_folder_gone, "none: does not exist"),
    ],
)
def test_what_does_not_belong_together(tmp_path, change, message):
    given = change(write_datacomp(tmp_path / "meta", PARTS[:3]))
    with pytest.raises(UserError) as caught:
        find_input(given)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_clip_retrieval_with_a_file_missing(tmp_path):
    write_clip_retrieval(tmp_path, PARTS[:3])
    (tmp_path / "text_emb" / "text_emb_1.npy").unlink()
    with pytest.raises(
        UserError, match=r"metadata_1\.parquet has no text_emb/text_emb_1\.npy; other tables have one"
    ):
        find_input(str(tmp_path))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            {"image_emb": "h14_img"},
            "00000000.npz: no embeddings called h14_img; found b32_img, b32_txt, l14_img",
        ),
        ({"image_emb": "text"}, "column text is string; expected lists of floats"),
        ({"clip_score": "score"}, "columns.clip_score: "),
        ({"image_emb": None, "text_emb": None}, "no embeddings found"),
    ],
)
def test_names_that_are_not_there(tmp_path, wanted, message):
    write_datacomp(tmp_path, PARTS[:1])
    with pytest.raises(UserError) as caught:
        columns(tmp_path, **wanted)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_table_that_is_none(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(UserError, match=r"x\.parquet: not parquet, or truncated"):
        columns(tmp_path)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "x.parquet")
    with pytest.raises(
        UserError, match=r"no embeddings found in .*x\.parquet: its columns are a; expected tars"
    ):
        columns(tmp_path)


@pytest.mark.parametrize(("count", "of"), [(0, 3), (1, 3), (10, 3), (12, 4), (5, 1)])
def test_parts_share_the_rows_without_gap_or_overlap(tmp_path, count, of):
    (file,) = tables(str(write_columns(tmp_path, PARTS[:1])))
    rows = [row for index in range(of) for row in TableShard(file, index, of).rows(count)]
    assert rows == list(range(count))


def test_large_arrays_are_cut_and_the_identity_knows_it(tmp_path):
    files = tables(str(write_datacomp(tmp_path, PARTS[:2])))
    size = files[0].npz.size
    assert [(shard.index, shard.of) for shard in split_tables(files, size)] == [(0, 1), (0, 1)]
    parts = split_tables(files, size - 1)
    assert [(shard.name, shard.index, shard.of) for shard in parts][:2] == [
        ("00000000", 0, 2),
        ("00000000", 1, 2),
    ]
    assert pool_identity(parts) != pool_identity(split_tables(files, size))
    moved = tables(str(shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-moved")))
    assert pool_identity(split_tables(moved, size)) == pool_identity(split_tables(files, size))
    np.savez(tmp_path / "00000001.npz", l14_img=np.ones((5, 2)))
    assert pool_identity(split_tables(tables(str(tmp_path)), size)) != pool_identity(split_tables(files, size))
