"""Searches find what brute force finds, and describe it as `explain` does."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from d2prune.embed.decode.pool import Lane
from d2prune.embed.decode.resize import Pixels
from d2prune.embed.model import sources
from d2prune.embed.model.encoder import ClipEncoder
from d2prune.errors import UserError
from d2prune.explore.explain import explain, read_ranking
from d2prune.search import searcher as searching
from d2prune.search.query_model import QueryModel
from d2prune.search.searcher import Searcher
from tests.pools import draw


def best(similarities, top):
    """Positions by similarity, then position."""
    return np.lexsort((np.arange(len(similarities)), -similarities))[:top]


def same(hits, similarities, top):
    """The hits are the `top` of exact similarities, up to the rounding of float16."""
    chosen = best(similarities, top)
    assert len(hits) == len(chosen) == len(set(hits.positions.tolist()))
    assert np.allclose(hits.similarities, similarities[chosen], atol=2e-3)
    assert np.allclose(hits.similarities, similarities[hits.positions], atol=2e-3)
    assert (np.diff(hits.similarities) <= 0).all()


@pytest.fixture(scope="module")
def encoder(tiny_model):
    return ClipEncoder(sources.resolve(str(tiny_model), None))


@pytest.mark.parametrize("text", ["a red flag", "", "ein Hund 🐕", "word " * 5000])
def test_a_text_finds_the_samples_that_its_embedding_is_nearest_to(searcher, encoder, text):
    pixels = np.zeros((1, encoder.preprocess.height, encoder.preprocess.width, 3), np.uint8)
    query = encoder.encode(pixels, [text]).text_ND[0].astype(np.float32)
    same(searcher.by_text(text, 9), compare(searcher.run, query), 9)


def compare(run, query):
    """The mean of the cosines of a query and both sides of each sample."""
    sides = run.parts.take_vectors(np.arange(len(run)))
    return sum(side.astype(np.float32) @ query for side in sides) / 2


def test_an_image_finds_the_samples_that_its_embedding_is_nearest_to(searcher, encoder):
    image = Image.open(io.BytesIO(draw("circle", "red", 3))).convert("RGB")
    stored = io.BytesIO()
    image.save(stored, "PNG")
    pixels = encoder.preprocess(Pixels.of(image))[None]
    query = encoder.encode(pixels, ["a"]).image_ND[0].astype(np.float32)
    same(searcher.by_image(stored.getvalue(), 9), compare(searcher.run, query), 9)


def test_the_limit_of_pixels_is_that_of_the_run(searcher, model_name):
    run, picture = searcher.run, draw("circle", "red", 3)
    params = {**run.embed.params, "max_pixels": 99}
    model = QueryModel(replace(run, embed=replace(run.embed, params=params)), model_name)
    # The searcher's own encoder: a second one would be loaded.
    searcher.model.encode_text("a")
    model._encoder = searcher.model._encoder
    with pytest.raises(UserError, match=r"image-too-large .*limit 99\); expected an image"):
        model.encode_image(picture)


def test_texts_do_not_wait_for_an_image_that_is_decoded(searcher, monkeypatch):
    def decode(self, samples):
        raise UserError(f"the model is locked: {searcher.model._lock.locked()}")

    monkeypatch.setattr(Lane, "submit", decode)
    with pytest.raises(UserError, match="is locked: False"):
        searcher.by_image(b"x", 1)


@pytest.mark.parametrize("data", [b"", b"not an image", b"\xff\xd8\xff\xe0" + bytes(100)])
def test_what_is_no_image_is_refused(searcher, data):
    with pytest.raises(UserError, match=r"image: found image-\w+.*; expected an image"):
        searcher.by_image(data, 5)


@pytest.mark.parametrize("top", [1, 10, 159, 10_000])
@pytest.mark.parametrize("position", [0, 77, 159])
def test_like_a_sample_without_a_model_and_without_itself(tables, vectors, position, top):
    similarities = sum(side @ side[position] for side in vectors) / 2
    similarities[position] = -2
    same(Searcher(tables).like(position, top), similarities, min(top, len(tables) - 1))


@pytest.mark.parametrize("kind", ["one side", "both sides"])
@pytest.mark.parametrize("top", [1, 25, 500])
def test_near_a_target_set_is_the_maximum_over_its_rows(tables, vectors, monkeypatch, kind, top):
    monkeypatch.setattr(searching, "_BATCH_RESULTS", 200)  # several batches of targets
    targets = np.random.default_rng(4).normal(size=(30, 16 if kind == "one side" else 32))
    halves = [targets, targets] if kind == "one side" else [targets[:, :16], targets[:, 16:]]
    units = [half / np.linalg.norm(half, axis=1, keepdims=True) for half in halves]
    similarities = sum(side @ unit.T for side, unit in zip(vectors, units, strict=True)).max(axis=1) / 2
    same(Searcher(tables).near(targets * 7, top), similarities, min(top, len(tables)))


@pytest.mark.parametrize("shape", [(3, 15), (3, 17), (16,), (2, 2, 16), (0, 5)])
def test_queries_of_another_width_are_refused(tables, shape):
    with pytest.raises(UserError, match=r"expected \[M, 16 or 32\]"):
        Searcher(tables).near(np.ones(shape, np.float32), 3)


def test_a_larger_pool_is_searched_in_enough_lists(tables, monkeypatch):
    """The lists visited hold several times the samples wanted, so that many are found when many are."""
    monkeypatch.setattr(searching, "EXACT_BELOW", 0)
    monkeypatch.setattr(searching, "_NPROBE", 1)
    searcher = Searcher(tables)
    assert searcher._index.nlist > 10
    for top in (1, 10, len(tables)):
        assert len(searcher.like(5, top)) >= min(top, len(tables) - 1) // 2


@pytest.mark.parametrize("which", ["tars", "tables"])
def test_what_is_found_is_described_as_explain_describes_it(which, searcher, tables):
    one = searcher if which == "tars" else Searcher(tables)
    hits = one.like(3, len(one.run))
    found = one.describe(hits)
    ranking = read_ranking(one.run)
    outcomes = set()
    for sample in found:
        explained = explain(one.run, sample.position, ranking)
        row = explained.sample
        outcomes.add(row["reason"])
        assert sample.outcome == explained.outcome and sample.kept == row["kept"]
        assert (sample.uid, sample.shard, sample.key) == (row["uid"], row["shard"], row["key"])
        assert sample.caption == (row["caption"] or "") and sample.clip_score == row["clip_score"]
        assert sample.score == row["difficulty"] - one.run.offset
        assert (sample.selection_score is None) == (explained.rank is None)
    assert {"kept", "below-budget"} <= outcomes
    assert one.describe(hits[:0]) == []


def test_the_index_may_be_moved(indexed, tmp_path):
    import shutil

    from d2prune.index.build import build_index

    folder = shutil.copytree(build_index(indexed), tmp_path / "moved")
    (folder / "manifest.json").unlink()
    before = Searcher(indexed).like(4, 5)
    assert Searcher(indexed, str(folder)).like(4, 5).positions.tolist() == before.positions.tolist()
    (folder / "pool.ivfdata").write_bytes(b"short")
    with pytest.raises(UserError, match=r"pool.ivfdata: found 5 bytes; expected \d+"):
        Searcher(indexed, str(folder))
    (folder / "pool.faiss").write_bytes(b"x")
    shutil.copy(build_index(indexed) + "/pool.ivfdata", folder)
    with pytest.raises(UserError, match="found an index that faiss cannot open"):
        Searcher(indexed, str(folder))
