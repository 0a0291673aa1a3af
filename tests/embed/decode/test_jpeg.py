"""simplejpeg's pixels are Pillow's, whatever the bytes; and Pillow decides where it must."""

import functools
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from d2prune.embed.decode import decoder as decoder_module
from d2prune.embed.decode import jpeg
from d2prune.embed.decode.decoder import Decoder
from d2prune.embed.decode.kernel import source_bytes
from d2prune.embed.decode.resize import Preprocess
from d2prune.inputs.rejects import SampleRejected
from tests.embed.images import encode_image, noise_image

DECODER = Decoder(Preprocess(8, 8), max_pixels=10**5)


def decode_alone(data, order="RGBX"):
    """Decode without Pillow's help; return the pixels, or None if it must help."""
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        pixels = np.empty(source_bytes(width, height), np.uint8)
        if not jpeg.decode(image, data, order, pixels):
            return None
        return pixels[: width * height * len(order)].reshape(height, width, -1)[:, :, :3]


@functools.cache
def stored(kind):
    options = {
        "420": {"subsampling": 2},
        "444": {"subsampling": 0},
        "progressive": {"progressive": True},
        "restarts": {"restart_marker_rows": 1},
        "gray": {},
        "cmyk": {},
    }[kind]
    mode = {"gray": "L", "cmyk": "CMYK"}.get(kind, "RGB")
    return encode_image(noise_image(3, 45, 37, mode), "JPEG", **options)


def outcome(data):
    """Return the pixels that a decoder finds, or the reason and detail of its reject."""
    try:
        found = DECODER.decode_image(data)
    except SampleRejected as error:
        return error.reject("k")
    return found.source[: 4 * found.width * found.height].reshape(-1, 4)[:, :3].tobytes()


@pytest.mark.parametrize("order", ["RGB", "RGBX"])
@pytest.mark.parametrize("kind", ["420", "444", "progressive", "restarts", "gray"])
def test_whole_files_do_not_need_pillow(kind, order):
    with Image.open(io.BytesIO(stored(kind))) as image:
        np.testing.assert_array_equal(decode_alone(stored(kind), order), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("data", [stored("cmyk"), stored("420")[:-2], encode_image(noise_image(0), "PNG")])
def test_pillow_decodes_the_rest(data):
    assert decode_alone(data) is None


def test_pillow_decodes_all_where_its_libjpeg_differs(monkeypatch):
    expected = outcome(stored("420"))
    jpeg._equals_pillow.cache_clear()
    try:
        monkeypatch.setattr(jpeg.simplejpeg, "decode_jpeg", lambda data, order, buffer: np.zeros((19, 35, 3)))
        assert outcome(stored("420")) == expected
    finally:
        jpeg._equals_pillow.cache_clear()


@given(
    kind=st.sampled_from(["420", "444", "progressive", "restarts", "gray", "cmyk"]),
    cut=st.one_of(st.none(), st.floats(0, 1)),
    edits=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=3),
    tail=st.binary(max_size=20),
)
@settings(max_examples=120, deadline=None)
def test_damaged_files_have_pillows_pixels_or_reject(kind, cut, edits, tail):
    data = bytearray(stored(kind))
    for share, junk in edits:
        at = min(int(share**2 * len(data)), len(data) - 1)
        data[at : at + len(junk)] = junk
    data = bytes(data[: None if cut is None else int(cut * len(data))] + tail)
    found = outcome(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder_module.jpeg, "decode", lambda *_: False)
        assert outcome(data) == found
