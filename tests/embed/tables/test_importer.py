"""Importing embeddings gives the artifact of the embed stage, with a reason for every rejected row."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from d2prune.embed.tables.importer import ImportParams, ImportWorker, plan
from d2prune.errors import UserError
from d2prune.inputs import rejects
from d2prune.inputs.find import find_input
from d2prune.inputs.sample_id import MAX_TEXT
from d2prune.inputs.tables.column_names import WantedColumns, resolve_columns
from d2prune.inputs.tables.files import split_tables
from d2prune.inputs.tables.schema_check import check_files, find_dimension
from d2prune.parts import shard_urls
from d2prune.parts.files import EMBEDDINGS
from d2prune.parts.reader import Parts
from d2prune.store import artifacts, schemas
from d2prune.store.columns import vector_column, vectors
from tests.tables import (
    datacomp_table,
    make_rows,
    write_arrays,
    write_clip_retrieval,
    write_columns,
    write_datacomp,
)

PARTS = [make_rows(40, 1), make_rows(0, 2), make_rows(25, 3)]
WRITERS = {
    "datacomp": write_datacomp,
    "compressed": lambda folder, parts: write_datacomp(folder, parts, compressed=True),
    "clip-retrieval": write_clip_retrieval,
    "arrays": write_arrays,
    "columns": write_columns,
}


def params_of(files, fields=(), **wanted):
    columns = resolve_columns(files, WantedColumns(**wanted))
    return ImportParams(columns, find_dimension(files, columns), tuple(fields))


def check(source, fields=(), **wanted):
    """Check a pool as the preflight does."""
    files = find_input(str(source))
    params = params_of(files, fields, **wanted)
    check_files(files, params.columns, fields, params.dimension)


def imported(source, work, fields=(), share=1 << 30, **wanted):
    """Import a pool; return its receipts, samples, embeddings and rejects."""
    files = find_input(str(source))
    params = params_of(files, fields, **wanted)
    shards, folder = split_tables(files, share), str(work / "embed")
    receipts = [ImportWorker(folder, params)(unit) for unit in plan(shards, params)]
    samples, rejected = (
        pa.concat_tables(artifacts.read_table(folder, receipt, f"{name}.parquet") for receipt in receipts)
        for name in ("samples", "rejects")
    )
    shard_urls.record(str(work), "e", shards)
    return receipts, samples, read_sides(Parts(str(work), {"embed": receipts}, "e")), rejected


def read_sides(parts):
    """The embeddings of a pool: read part by part, and the same bytes row by row."""
    names = parts.vector_sides(EMBEDDINGS)
    blocks = {name: [] for name in names}
    for part in range(parts.spans.n_parts):
        for found in parts.read_vectors(part, EMBEDDINGS, names):
            for name, rows in zip(names, found, strict=True):
                blocks[name].append(rows)
    sides = {name: np.concatenate(found) for name, found in blocks.items()}
    positions = np.random.default_rng(0).integers(0, max(1, len(parts)), 20 if len(parts) else 0)
    taken = dict(zip(("image_emb", "text_emb"), parts.take_vectors(positions), strict=True))
    for name, rows in sides.items():
        assert rows.dtype == np.float16 and taken[name].tobytes() == rows[positions].tobytes()
    return pa.table({name: vector_column(rows) for name, rows in sides.items()})


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("share", [1 << 30, 1000])
def test_every_layout_gives_the_same_artifact(tmp_path, layout, share):
    source = WRITERS[layout](tmp_path / "pool", PARTS)
    receipts, samples, embeddings, rejected = imported(source, tmp_path / "work", share=share)
    assert (len(receipts) > 3) == (share == 1000)
    assert samples.schema == schemas.samples() and rejected.num_rows == 0
    assert embeddings.schema == schemas.embeddings(16)
    for name in ("uid", "caption"):
        assert samples[name].to_pylist() == [value for rows in PARTS for value in getattr(rows, name)]
    expected = np.concatenate([rows.score for rows in PARTS]).astype(np.float32)
    assert samples["clip_score"].to_numpy().tobytes() == expected.tobytes()
    for name, side in (("image_emb", "image"), ("text_emb", "text")):
        expected = np.concatenate([getattr(rows, side) for rows in PARTS])
        assert vectors(embeddings[name]).tobytes() == expected.tobytes()
    assert samples["offset"].to_pylist() == [*range(40), *range(25)] and set(samples["size"].to_pylist()) == {
        0
    }
    assert artifacts.sum_counters(receipts) == {"embedded": 65, "read": 65, "rejected": 0}
    copied = [file.rows for receipt in receipts for file in receipt.files if file.name == EMBEDDINGS]
    if layout in ("compressed", "columns"):
        assert copied == [receipt.rows("samples.parquet") for receipt in receipts]
    else:
        # A part without rows has no array to be read in.
        assert set(copied) <= {0}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("fixed", [True, False])
def test_lists_of_any_float_type_are_read(tmp_path, dtype, fixed):
    rows = make_rows(30, dtype=dtype)
    write_columns(tmp_path / "pool", [rows], fixed=fixed)
    _, _, embeddings, _ = imported(tmp_path / "pool", tmp_path / "work")
    assert vectors(embeddings["image_emb"]).tobytes() == rows.image.astype(np.float16).tobytes()


def test_width_height_and_fields_are_carried_along(tmp_path):
    write_datacomp(tmp_path / "pool", PARTS[:1])
    fields = [("clip_b32_similarity_score", "number"), ("url", "text")]
    _, samples, _, _ = imported(tmp_path / "pool", tmp_path / "work", fields)
    assert samples.schema == schemas.samples(fields)
    assert samples["width"].to_pylist() == list(range(100, 140))
    assert samples["height"].to_pylist() == list(range(200, 240))
    assert samples["key"].to_pylist()[:2] == ["00000000", "00000001"]
    np.testing.assert_array_equal(samples["clip_b32_similarity_score"].to_numpy(), np.linspace(0, 1, 40))
    assert samples["url"].to_pylist() == [f"https://host/{uid}.jpg" for uid in PARTS[0].uid]


def test_table_key_hashed_uid_and_computed_score(tmp_path):
    rows = make_rows(20)
    doubled = replace(
        rows,
        image=np.concatenate([rows.image[:19], rows.image[:1]]),
        text=np.concatenate([rows.text[:19], rows.text[:1]]),
        caption=[*rows.caption[:19], rows.caption[0]],
    )
    write_clip_retrieval(tmp_path / "pool", [doubled])
    receipts, samples, _, _ = imported(tmp_path / "pool", tmp_path / "work", uid=None, clip_score=None)
    assert samples["key"].to_pylist() == [f"{uid}.jpg" for uid in rows.uid]
    cosine = (doubled.image.astype(np.float64) * doubled.text).sum(axis=1)
    np.testing.assert_allclose(samples["clip_score"].to_numpy(), cosine, rtol=1e-6)
    uid = samples["uid"].to_pylist()
    assert all(len(value) == 32 for value in uid) and uid[0] == uid[19] and len(set(uid)) == 19
    assert receipts[0].counters["uid-from-hash"] == 20 and receipts[0].counters["uid-duplicate"] == 1


def test_image_embeddings_alone(tmp_path):
    write_clip_retrieval(tmp_path / "pool", PARTS, text=False)
    receipts, samples, embeddings, _ = imported(tmp_path / "pool", tmp_path / "work", clip_score=None)
    assert embeddings.column_names == ["image_emb"] and samples["clip_score"].null_count == 65
    assert receipts[0].facts["dimension"] == 16
    files = {path.name: path.stat().st_size for path in (tmp_path / "pool").rglob("*_0.*")}
    assert files and {name: size for name, size, _ in receipts[0].facts["sources"]} == files


def test_every_bad_row_is_rejected_with_its_reason(tmp_path):
    rows = make_rows(12)
    image, text = rows.image.copy(), rows.text.copy()
    image[1] = 0
    image[2, 3] = np.nan
    text[3, 0] = np.inf
    table = datacomp_table(replace(rows, image=image))
    uid = ["xyz" if i == 4 else None if i == 5 else value.upper() for i, value in enumerate(rows.uid)]
    score = [
        None if i == 6 else float("nan") if i == 7 else float(value) for i, value in enumerate(rows.score)
    ]
    beauty = [None if i == 8 else float("inf") if i == 9 else i for i in range(12)]
    lang = [None if i == 10 else "en" for i in range(12)]
    caption = [None if i == 11 else value for i, value in enumerate(rows.caption)]
    for name, values in (("uid", uid), ("clip_l14_similarity_score", score), ("text", caption)):
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    table = table.append_column("beauty", pa.array(beauty, pa.float32())).append_column(
        "lang", pa.array(lang)
    )
    (tmp_path / "pool").mkdir()
    pq.write_table(table, tmp_path / "pool" / "a.parquet")
    np.savez(tmp_path / "pool" / "a.npz", l14_img=image, l14_txt=text)
    fields = [("beauty", "number"), ("lang", "text")]
    receipts, samples, embeddings, rejected = imported(tmp_path / "pool", tmp_path / "work", fields)
    assert [(row["key"], row["reason"]) for row in rejected.to_pylist()] == [
        ("00000001", "embedding-invalid"),
        ("00000002", "embedding-invalid"),
        ("00000003", "embedding-invalid"),
        ("00000004", "uid-invalid"),
        ("00000005", "uid-invalid"),
        ("00000006", "score-missing"),
        ("00000007", "score-missing"),
        ("00000008", "field-missing"),
        ("00000009", "field-missing"),
    ]
    assert set(rejected["reason"].to_pylist()) <= rejects.MEANINGS.keys()
    assert samples["offset"].to_pylist() == [0, 10, 11] and embeddings.num_rows == 3
    assert samples["uid"].to_pylist() == [rows.uid[i] for i in (0, 10, 11)]
    assert samples["lang"].to_pylist() == ["en", "", "en"] and samples["caption"].to_pylist()[2] == ""
    assert receipts[0].counters["rejected"] == 9 and receipts[0].counters["rejected.uid-invalid"] == 2


@pytest.mark.parametrize("make", [pa.list_, pa.large_list, pa.list_view, pa.large_list_view])
def test_missing_lists_and_lists_of_another_length_are_rejected(tmp_path, make):
    (tmp_path / "pool").mkdir()
    lists = [None, [], [3.0, 4.0], [1.0], [1.0, None], [0.0, 2.0]]
    table = pa.table({"image_emb": pa.array(lists, make(pa.float16()))})
    pq.write_table(table, tmp_path / "pool" / "a.parquet")
    _, samples, embeddings, rejected = imported(tmp_path / "pool", tmp_path / "work")
    assert samples["offset"].to_pylist() == [2, 5]
    np.testing.assert_array_equal(
        vectors(embeddings["image_emb"]), np.array([[0.6, 0.8], [0, 1]], np.float16)
    )
    assert set(rejected["reason"].to_pylist()) == {"embedding-invalid"}


def test_caption_that_is_not_utf8_is_decoded_with_replacement(tmp_path):
    rows = make_rows(3)
    raw = pa.array([b"good", b"\xff bad", None], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    table = datacomp_table(rows)
    table = table.set_column(table.column_names.index("text"), "text", text)
    (tmp_path / "pool").mkdir()
    pq.write_table(table, tmp_path / "pool" / "a.parquet")
    np.savez(tmp_path / "pool" / "a.npz", l14_img=rows.image, l14_txt=rows.text)
    _, samples, _, _ = imported(tmp_path / "pool", tmp_path / "work")
    assert samples["caption"].to_pylist() == ["good", "\ufffd bad", ""]


def spoil_rows(pool):
    np.savez(pool / "00000001.npz", l14_img=PARTS[2].image[:24], l14_txt=PARTS[2].text)


def spoil_column(pool):
    table = datacomp_table(PARTS[2]).drop_columns(["clip_l14_similarity_score", "uid"])
    pq.write_table(table, pool / "00000001.parquet")


def spoil_score(pool):
    table = datacomp_table(PARTS[2]).drop_columns(["clip_l14_similarity_score"])
    pq.write_table(
        table.append_column("clip_l14_similarity_score", pa.array(["x"] * 25)), pool / "00000001.parquet"
    )


def spoil_array(pool):
    np.savez(pool / "00000001.npz", l14_img=PARTS[2].image)


def spoil_type(pool):
    np.savez(pool / "00000001.npz", l14_img=np.ones((25, 16), int), l14_txt=PARTS[2].text)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_rows, "{pool}/00000001.parquet has 25 rows, but l14_img in {pool}/00000001.npz has 24"),
        (
            spoil_column,
            "{pool}/00000001.parquet: has no column clip_l14_similarity_score, uid; found url, text,",
        ),
        (
            spoil_score,
            "{pool}/00000001.parquet: column clip_l14_similarity_score is string; expected numbers",
        ),
        (spoil_array, "{pool}/00000001.npz: no embeddings called l14_txt; found l14_img"),
        (spoil_type, "{pool}/00000001.npz: l14_img: int64 (25, 16); expected floats [rows, dimensions]"),
    ],
)
def test_damaged_pool_is_a_one_line_error_that_names_the_file(tmp_path, spoil, message):
    pool = write_datacomp(tmp_path / "pool", [PARTS[0], PARTS[2]])
    spoil(pool)
    for act in (lambda: check(pool), lambda: imported(pool, tmp_path / "work")):
        with pytest.raises(UserError) as caught:
            act()
        assert message.format(pool=pool) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("write", [write_datacomp, write_columns])
def test_files_of_different_widths_are_refused(tmp_path, write):
    pool = write(tmp_path / "pool", [make_rows(5), make_rows(5, width=8)])
    for act in (lambda: check(pool), lambda: imported(pool, tmp_path / "work")):
        with pytest.raises(UserError, match=r"0*1\.\w+: .*has 8 dimensions; expected 16"):
            act()


def test_sides_of_different_widths_are_refused(tmp_path):
    pool = write_datacomp(tmp_path / "pool", [make_rows(5)])
    with pytest.raises(UserError, match="have l14_img 16, b32_txt 8 dimensions; expected one model's"):
        check(pool, text_emb="b32_txt")
    check(pool, text_emb=None)


def test_unit_keys_depend_on_file_contents_and_params(tmp_path):
    pool = write_datacomp(tmp_path / "pool", [PARTS[0]])

    def keys(**wanted):
        files = find_input(str(pool))
        return {unit.key for unit in plan(split_tables(files, 1000), params_of(files, **wanted))}

    first = keys()
    assert len(first) > 1 and keys() == first and not keys(text_emb=None) & first
    np.savez(pool / "00000000.npz", l14_img=PARTS[0].text, l14_txt=PARTS[0].text)
    assert not keys() & first


def test_too_little_memory_is_one_line_that_names_the_file(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise MemoryError

    pool = write_datacomp(tmp_path / "pool", [PARTS[0]])
    monkeypatch.setattr("d2prune.knn.unit_norm.unit_halves", refuse)
    with pytest.raises(UserError, match=r"00000000\.parquet: not enough memory to import it"):
        imported(pool, tmp_path / "work")
    assert not list((tmp_path / "work").rglob("receipt.json"))
    monkeypatch.setattr("pyarrow.parquet.ParquetFile.iter_batches", refuse)
    with pytest.raises(UserError, match=r"00000000\.parquet: not enough memory to read it"):
        imported(pool, tmp_path / "work")


def test_long_texts_are_cut_and_counted(tmp_path):
    rows = make_rows(4)
    long = replace(rows, caption=[*rows.caption[:3], "x" * (MAX_TEXT + 5)])
    pool = write_datacomp(tmp_path / "pool", [long])
    receipts, samples, _, _ = imported(pool, tmp_path / "work")
    assert samples["caption"].to_pylist() == [*rows.caption[:3], "x" * MAX_TEXT]
    assert receipts[0].counters["text-cut"] == 1


def test_a_file_without_embeddings_has_no_samples(tmp_path):
    pool = write_columns(tmp_path / "pool", [make_rows(3, 1), make_rows(4, 2)])
    path = pool / "part-0.parquet"
    table = pq.read_table(path)
    index = table.column_names.index("image_emb")
    for column in (pa.nulls(3), pa.array([None, [], None], pa.list_(pa.float32()))):
        pq.write_table(table.set_column(index, "image_emb", column), path)
        receipts, samples, embeddings, rejected = imported(pool, tmp_path / "work")
        assert samples.num_rows == embeddings.num_rows == 4 and rejected.num_rows == 3
        assert set(rejected["reason"].to_pylist()) == {"embedding-invalid"}
        assert [receipt.counters["embedded"] for receipt in receipts] == [0, 4]
