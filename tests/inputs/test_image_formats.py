"""Formats that are not decoded are named in the reject, without running their decoders."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from d2prune.embed.decode.decoder import Decoder
from d2prune.embed.decode.resize import Preprocess
from d2prune.inputs import rejects
from d2prune.inputs.image_formats import FORMATS, name_format
from d2prune.inputs.rejects import SampleRejected

DECODER = Decoder(Preprocess(8, 8), max_pixels=10_000)
IMAGE = Image.new("RGB", (9, 7), (200, 30, 60))


def encode(name):
    sink = io.BytesIO()
    IMAGE.save(sink, name)
    return sink.getvalue()


@pytest.mark.parametrize("name", FORMATS)
def test_each_listed_format_is_decoded(name):
    assert DECODER.decode_image(encode(name))[1:] == (9, 7)


ENCODED = ("JPEG2000", "ICO", "TGA", "PPM", "PCX", "DDS", "EPS", "PDF", "SGI", "ICNS")
BYTES = {
    "SVG": b'\xef\xbb\xbf <SVG xmlns="...">',
    "HTML": b"\n<!DOCTYPE html>",
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0",
    "MP4": b"\0\0\0\x18ftypisom\0\0\0\0",
    "JPEG XL": b"\xff\x0a\xfa\x1f",
    "CUR": b"\0\0\2\0\1\0\x20\x20\0\0\0\0\0\0\xa8\x08\0\0\x16\0\0\0",
    "PSD": b"8BPS\0\1" + bytes(20),
}


@pytest.mark.parametrize("name", [*ENCODED, *BYTES])
def test_each_other_format_is_rejected_by_name(name):
    data = BYTES.get(name) or encode(name)
    with pytest.raises(SampleRejected) as caught:
        DECODER.decode_image(data)
    assert caught.value.reason == rejects.IMAGE_UNDECODABLE
    assert caught.value.detail.startswith(f"found {name}; expected JPEG, PNG, ")


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_have_a_name_or_none(data):
    assert name_format(data) not in FORMATS or name_format(data) == "AVIF"
