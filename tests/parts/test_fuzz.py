"""Embeddings that stay in the input are read with the bits of a copy, whatever they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.inputs.tables.source import IN_PLACE
from d2prune.parts import in_place
from d2prune.parts.features import read_embeddings
from d2prune.parts.files import EMBEDDINGS
from d2prune.parts.in_place import find_in_place
from tests.fuzzing import fuzz
from tests.parts.test_in_place import WIDTH, import_pool, write_pool


@st.composite
def sides(draw):
    """Image and text embeddings and scores, some of which the import rejects."""
    rows = draw(st.integers(1, 20))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    image, text = (rng.standard_normal((rows, WIDTH)) for _ in range(2))
    if draw(st.booleans()):
        image, text = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (image, text))
    score = rng.random(rows)
    bad = draw(st.lists(st.tuples(st.integers(0, rows - 1), st.sampled_from("abcd")), max_size=rows))
    for row, kind in bad:
        side = image if kind in "ab" else text
        side[row, 0 if kind in "ac" else slice(None)] = {"a": np.nan, "b": 0, "c": np.inf, "d": 0}[kind]
        if kind == "d":
            score[row] = np.nan
    dtypes = st.sampled_from(["<f2", "<f4", ">f2", ">f4", "<f8", ">f8"])
    return image.astype(draw(dtypes)), text.astype(draw(dtypes)), score


@fuzz
@settings(max_examples=8, deadline=None)
@given(
    values=sides(),
    layout=st.sampled_from(["npz", "npz", "npy", "compressed"]),
    share=st.sampled_from([1 << 30, 300]),
    block=st.sampled_from([8 << 20, 50, 1]),
)
def test_the_bits_of_a_copy_of_any_array(tmp_path_factory, values, layout, share, block):
    folder = tmp_path_factory.mktemp("pool")
    lists, _ = import_pool(write_pool(folder / "lists", *values, "lists"), folder / "a")
    found, copied = import_pool(write_pool(folder / "arrays", *values, layout), folder / "b", share)
    stays = layout != "compressed" and all(side.dtype.str in IN_PLACE for side in values[:2])
    assert bool(copied) == (not stays)
    receipts = found.units("embed")
    for receipt in receipts:
        # A part without rows has nothing to leave in the input.
        leaves = stays and receipt.counters["read"] > 0
        assert (find_in_place(receipt) is not None) == leaves
        assert any(file.name == EMBEDDINGS for file in receipt.files) != leaves
    assert len(found) == len(lists) and found.vector_sides(EMBEDDINGS) == ["image_emb", "text_emb"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_place, "_BLOCK", block)
        for kind in ("image", "text", "image+text"):
            expected = read_embeddings(lists, 0, EMBEDDINGS, kind)
            rows = [read_embeddings(found, part, EMBEDDINGS, kind) for part in range(len(receipts))]
            assert np.concatenate(rows).tobytes() == expected.tobytes()
        if len(found):
            positions = np.random.default_rng(share).integers(0, len(found), 30)
            taken = np.concatenate(found.take_vectors(positions), axis=1)
            assert taken.tobytes() == expected[positions].tobytes()
