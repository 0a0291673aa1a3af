"""The files in a folder decide the kind of pool; files that do not belong together are a one-line error."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from d2prune.errors import UserError
from d2prune.inputs.find import find_input
from d2prune.inputs.shards import TarShard
from d2prune.inputs.tables.column_names import Columns
from tests.inputs.table_pools import PARTS, find_columns, find_tables
from tests.tables import write_arrays, write_clip_retrieval, write_columns, write_datacomp


def test_datacomp_metadata_is_recognised(tmp_path):
    found = find_tables(str(write_datacomp(tmp_path, PARTS[:3])))
    assert [file.name for file in found] == ["00000000", "00000001", "00000002"]
    assert all(
        file.npz.url == file.table.url.replace(".parquet", ".npz") and not file.arrays for file in found
    )
    assert find_columns(tmp_path) == Columns(
        "l14_img",
        "l14_txt",
        "clip_l14_similarity_score",
        "uid",
        None,
        "text",
        "original_width",
        "original_height",
    )


def test_clip_retrieval_folders_are_in_numeric_order(tmp_path):
    found = find_tables(str(write_clip_retrieval(tmp_path, PARTS)))
    assert [file.name for file in found] == [f"metadata_{i}" for i in range(11)]
    assert found[10].arrays["img_emb"].url.endswith("img_emb/img_emb_10.npy")
    assert find_columns(tmp_path) == Columns(
        "img_emb", "text_emb", "similarity", "uid", "image_path", "caption", None, None
    )


def test_clip_retrieval_without_text_embeddings(tmp_path):
    write_clip_retrieval(tmp_path, PARTS[:2], text=False)
    assert find_columns(tmp_path).embeddings == ("img_emb",)


@pytest.mark.parametrize("write", [write_arrays, write_columns])
def test_arrays_beside_tables_and_embedding_columns_are_recognised(tmp_path, write):
    write(tmp_path, PARTS[:2])
    assert [file.name for file in find_tables(str(tmp_path))] == ["part-0", "part-1"]
    assert find_columns(tmp_path) == Columns(
        "image_emb", "text_emb", "clip_score", "uid", None, "caption", None, None
    )


def test_single_npy_holds_image_embeddings(tmp_path):
    pq.write_table(pa.table({"caption": ["a", "b"]}), tmp_path / "x.parquet")
    np.save(tmp_path / "x.npy", np.ones((2, 3)))
    found = find_columns(tmp_path)
    assert found.embeddings == ("image_emb",) and found.uid is None and found.clip_score is None


def test_named_tables_include_the_arrays_beside_them(tmp_path):
    write_datacomp(tmp_path / "a", PARTS[:3])
    write_arrays(tmp_path / "b", PARTS[:2])
    assert [file.name for file in find_tables(f"{tmp_path}/a/{{00000002,00000000}}.parquet")] == [
        "00000002",
        "00000000",
    ]
    assert all(file.npz for file in find_tables(f"{tmp_path}/a/*.parquet"))
    assert [len(file.arrays) for file in find_tables(f"{tmp_path}/b/part-?.parquet")] == [2, 2]
    found = find_tables([f"{tmp_path}/a/00000002.parquet", f"{tmp_path}/a/00000001.parquet"])
    assert [file.name for file in found] == ["00000002", "00000001"]


def test_tables_of_the_same_name_are_named_by_folder(tmp_path):
    for name in ("a", "b"):
        write_datacomp(tmp_path / name, PARTS[:1])
    assert [file.name for file in find_tables(str(tmp_path))] == ["a/00000000", "b/00000000"]


def test_other_files_beside_tars_are_ignored(pool, tmp_path):
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
        (
            break_npz_gone,
            "00000001.parquet has no meta/00000001.npz; other tables have one: meta/00000000.npz",
        ),
        (break_table_gone, "00000001.npz has no table beside it; expected meta/00000001.parquet"),
        (break_stray_array, "stray.npy has no table beside it; expected meta/stray.parquet"),
        (
            break_two_layouts,
            "found DataComp's metadata and arrays beside tables; expected one layout per run",
        ),
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
def test_files_that_do_not_belong_together_are_a_one_line_error(tmp_path, change, message):
    given = change(write_datacomp(tmp_path / "meta", PARTS[:3]))
    with pytest.raises(UserError) as caught:
        find_input(given)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_missing_array_of_clip_retrieval_is_named(tmp_path):
    write_clip_retrieval(tmp_path, PARTS[:3])
    (tmp_path / "text_emb" / "text_emb_1.npy").unlink()
    with pytest.raises(
        UserError, match=r"metadata_1\.parquet has no text_emb/text_emb_1\.npy; other tables have one"
    ):
        find_input(str(tmp_path))
