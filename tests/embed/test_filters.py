"""Filters at their limits, before anything is decoded; filtered and rejected are counted separately."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from d2prune.embed import params as embed_params
from d2prune.embed import worker
from d2prune.embed.decode.decoder import DecodedSample, Decoder
from d2prune.embed.decode.resize import Preprocess
from d2prune.embed.filters import Filters
from d2prune.embed.model import sources
from d2prune.inputs import rejects
from d2prune.inputs.rejects import SampleRejected
from d2prune.inputs.shards import expand_input
from d2prune.inputs.tar.reader import TarSample
from tests.embed.images import encode_image, make_image, write_tar
from tests.oracles_datacomp import Metadata, basic_filter

SIDES = st.integers(0, 900)


def outcome(filters, caption="a red car", image=None, record=None):
    decoder = Decoder(Preprocess(8, 8), 10**6, filters=filters)
    members = {
        "jpg": encode_image(make_image(0, 40, 20)) if image is None else image,
        "txt": caption.encode(),
    }
    if record is not None:
        members["json"] = json.dumps(record).encode()
    found = decoder(TarSample("k", 0, 0, members, {}, ("jpg", "txt")), memoryview(bytearray(8 * 8 * 3)))
    return "kept" if isinstance(found, DecodedSample) else found.reason


@pytest.mark.parametrize(
    ("rule", "kept", "filtered", "reason"),
    [
        ("min_words", 3, 4, rejects.FILTERED_WORDS),
        ("min_characters", 9, 10, rejects.FILTERED_CHARACTERS),
        ("min_image_side", 20, 21, rejects.FILTERED_IMAGE_SIDE),
        ("max_aspect_ratio", 2, 1.99, rejects.FILTERED_ASPECT_RATIO),
    ],
)
def test_each_filter_at_its_limit(rule, kept, filtered, reason):
    assert outcome(Filters(**{rule: kept})) == "kept"
    assert outcome(Filters(**{rule: filtered})) == reason


@pytest.mark.parametrize(
    ("record", "kept"),
    [
        ({"original_width": 400, "original_height": 200}, True),
        ({"original_width": 400, "original_height": 199}, False),
        ({"original_width": 200, "original_height": 400}, True),
        ({"original_width": 601, "original_height": 200}, False),
        # The stored image is 40 x 20 pixels.
        ({"original_width": 400}, False),
        ({"original_width": "400", "original_height": "200"}, False),
        ({"original_width": True, "original_height": 200}, False),
        ({"original_width": 0, "original_height": 0}, False),
        ({"width": 400, "height": 200}, False),
    ],
)
def test_size_before_a_resize_counts(record, kept):
    found = outcome(Filters(min_image_side=200, max_aspect_ratio=3), record=record)
    assert (found == "kept") == kept


@given(
    st.text(st.sampled_from("ab ,\t\n\r\u00a0\u3000é木"), max_size=9),
    st.integers(0, 900),
    st.integers(0, 900),
)
@example("a b cd", 200, 600)
@example("a b cd", 201, 604)
@settings(max_examples=100)
def test_filters_equal_datacomps_basic_rule(caption, width, height):
    filters = Filters(3, 6, 200, 3.0, "en")
    data = Metadata(["0" * 32], [caption], np.array([width]), np.array([height]), *[np.zeros(1)] * 3)
    try:
        filters.check_caption(caption)
        filters.check_image(width, height)
    except SampleRejected:
        assert not basic_filter(data)[0]
    else:
        assert basic_filter(data)[0]


def test_filters_apply_before_decoding():
    cut = encode_image(make_image(0, 40, 20))[:-30]
    assert outcome(Filters(min_image_side=21), image=cut) == rejects.FILTERED_IMAGE_SIDE
    assert outcome(Filters(min_image_side=20), image=cut) == rejects.IMAGE_TRUNCATED
    assert outcome(Filters(min_words=4), image=b"junk") == rejects.FILTERED_WORDS


def test_filtered_and_rejected_are_counted_separately(tiny_model, tmp_path):
    members = [
        member
        for key, caption in (("a", "one"), ("b", "one two"), ("c", "one"), ("d", "one two"))
        for member in (
            (f"{key}.png", encode_image(make_image(1)) if key != "d" else b"junk"),
            (f"{key}.txt", caption.encode()),
        )
    ]
    write_tar(tmp_path / "0.tar", members)
    params = embed_params.EmbedParams(*sources.identity(str(tiny_model), None), filters=Filters(min_words=2))
    plain = dataclasses.replace(params, filters=Filters())
    (unit,) = embed_params.plan(expand_input(str(tmp_path)), params)
    assert unit.key != embed_params.plan(expand_input(str(tmp_path)), plain)[0].key
    counters = worker.EmbedWorker(str(tmp_path / "embed"), params, str(tiny_model), None, device="cpu")(
        unit
    ).counters
    assert counters == {
        "read": 4,
        "embedded": 1,
        "rejected": 1,
        "filtered": 2,
        "filtered.filtered-words": 2,
        "rejected.image-undecodable": 1,
        "uid-from-hash": 1,
    }
    worker.check_reject_rate(counters, 0.25)
