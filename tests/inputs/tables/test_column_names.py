"""Names of columns and arrays are found in the first file, and wrong ones are a one-line error."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from d2prune.errors import UserError
from tests.inputs.table_pools import PARTS, find_columns
from tests.tables import write_datacomp


def test_image_array_decides_text_array_and_score(tmp_path):
    write_datacomp(tmp_path, PARTS[:1])
    found = find_columns(tmp_path, image_emb="b32_img")
    assert (found.image_emb, found.text_emb, found.clip_score) == (
        "b32_img",
        "b32_txt",
        "clip_b32_similarity_score",
    )
    assert find_columns(tmp_path, text_emb=None).embeddings == ("l14_img",)


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
def test_unknown_column_is_a_one_line_error(tmp_path, wanted, message):
    write_datacomp(tmp_path, PARTS[:1])
    with pytest.raises(UserError) as caught:
        find_columns(tmp_path, **wanted)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_file_that_is_not_parquet_is_a_user_error(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(UserError, match=r"x\.parquet: not parquet, or truncated"):
        find_columns(tmp_path)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "x.parquet")
    with pytest.raises(
        UserError, match=r"no embeddings found in .*x\.parquet: its columns are a; expected tars"
    ):
        find_columns(tmp_path)
