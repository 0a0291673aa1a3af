"""Pixels equal open_clip's own loader; anything that is not an image is a reject, never an exception."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from d2prune.embed.caption_limit import CAPTION_CUT, MAX_CHARACTERS
from d2prune.embed.decode.decoder import (
    CAPTION_REPLACED,
    DecodedSample,
    Decoder,
    decode_caption,
)
from d2prune.embed.decode.resize import Preprocess
from d2prune.embed.model import sources
from d2prune.inputs import rejects
from d2prune.inputs.rejects import Reject, SampleRejected
from d2prune.inputs.sample_id import JSON_BROKEN, UID_FROM_HASH
from d2prune.inputs.tar.reader import TarSample
from tests.embed.images import encode_image, make_image

DECODER = Decoder(Preprocess(32, 32), max_pixels=10_000)


def prepare(sample):
    """Return the outcome of a sample, and its pixels."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    return DECODER(sample, memoryview(pixels).cast("B")), pixels


def decode_image(data):
    return DECODER.decode_image(data)


def scaled(transform, image):
    """Return open_clip's pixels before normalisation."""
    from torchvision.transforms import Compose

    return (Compose(transform.transforms[:-1])(image) * 255).permute(1, 2, 0).numpy()


@pytest.fixture(scope="module")
def transform():
    sources.import_open_clip()
    from open_clip.transform import PreprocessCfg, image_transform_v2

    return image_transform_v2(PreprocessCfg(size=32), is_train=False)


def sample(too_large=None, **members):
    return TarSample("k", 0, 512, members, too_large or {}, tuple(members))


def reason(data):
    with pytest.raises(SampleRejected) as caught:
        decode_image(data)
    return caught.value.reason


def gray16():
    return Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50)


def animation():
    sink = io.BytesIO()
    make_image(1).save(sink, "GIF", save_all=True, append_images=[make_image(2), make_image(3)])
    return sink.getvalue()


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode_image(make_image(4), "JPEG", exif=exif)


IMAGES = {
    "jpeg": lambda: encode_image(make_image(0), "JPEG"),
    "progressive": lambda: encode_image(make_image(0), "JPEG", progressive=True),
    "gray": lambda: encode_image(make_image(0, mode="L"), "JPEG"),
    "cmyk": lambda: encode_image(make_image(0, mode="CMYK"), "JPEG"),
    "exif-rotated": rotated,
    "png": lambda: encode_image(make_image(0)),
    "palette": lambda: encode_image(make_image(0).quantize(16)),
    "bilevel": lambda: encode_image(make_image(0, mode="1")),
    "alpha": lambda: encode_image(make_image(0, mode="RGBA").rotate(30)),
    "palette-alpha": lambda: encode_image(make_image(0).quantize(16), transparency=3),
    "16-bit": lambda: encode_image(gray16()),
    "webp": lambda: encode_image(make_image(0), "WEBP"),
    "webp-lossless-alpha": lambda: encode_image(make_image(0, mode="RGBA").rotate(9), "WEBP", lossless=True),
    "gif": animation,
    "still-gif": lambda: encode_image(make_image(0), "GIF"),
    "bmp": lambda: encode_image(make_image(0), "BMP"),
    "tiff": lambda: encode_image(make_image(0), "TIFF"),
    "tall": lambda: encode_image(make_image(0, 10, 90)),
    "one-pixel": lambda: encode_image(make_image(0, 1, 1)),
}


@pytest.mark.parametrize("name", IMAGES)
def test_pixels_equal_open_clips_loader(name, transform):
    data = IMAGES[name]()
    found, pixels = prepare(sample(jpg=data, txt=b"a"))
    assert isinstance(found, DecodedSample), found
    # open_clip_train decodes with webdataset's "pilrgb", then applies the model's preprocessing.
    from webdataset.autodecode import ImageHandler

    np.testing.assert_array_equal(pixels, scaled(transform, ImageHandler("pilrgb")("x.jpg", data)))
    with Image.open(io.BytesIO(data)) as image:
        assert (found.width, found.height) == image.size


@pytest.mark.parametrize("name", ["jpeg", "progressive", "gray", "exif-rotated", "png", "webp", "tall"])
def test_pixels_equal_preprocess_of_the_opened_file(name, transform):
    data = IMAGES[name]()
    _found, pixels = prepare(sample(jpg=data, txt=b"a"))
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(pixels, scaled(transform, image))


def test_animation_is_its_first_frame():
    frames = [prepare(sample(jpg=encode_image(make_image(i), "GIF"), txt=b"a"))[1] for i in (1, 2)]
    found = prepare(sample(jpg=animation(), txt=b"a"))[1]
    assert np.array_equal(found, frames[0]) and not np.array_equal(found, frames[1])


@pytest.mark.parametrize("name", ["jpeg", "progressive", "png", "webp", "still-gif", "bmp", "tiff"])
def test_truncated_image_is_distinguished_from_junk(name):
    data = IMAGES[name]()
    for share in (0.3, 0.6, 0.9):
        assert reason(data[: int(len(data) * share)]) == rejects.IMAGE_TRUNCATED


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<html>404</html>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
    ],
)
def test_junk_is_undecodable(data):
    assert reason(data) == rejects.IMAGE_UNDECODABLE


def png_claiming(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(101, 100), (40_000, 40_000), (1, 2_000_000_000)])
def test_too_many_pixels_are_rejected_by_the_header(size):
    assert reason(png_claiming(*size)) == rejects.IMAGE_TOO_LARGE


def test_narrow_image_that_the_resize_would_enlarge_is_rejected():
    assert reason(encode_image(make_image(0, 1, 100))) == rejects.IMAGE_TOO_LARGE
    decode_image(encode_image(make_image(0, 1, 9)))


@pytest.mark.parametrize("whole_bytes", [0, 1 << 20])
def test_narrow_image_of_which_the_resize_leaves_no_pixel_is_rejected(whole_bytes):
    decoder = Decoder(Preprocess(16, 16, mode="longest"), 10**6, whole_bytes=whole_bytes)
    for size, kept in (((2, 40), True), ((1, 40), False)):
        sample = TarSample(
            "k", 0, 512, {"jpg": encode_image(make_image(0, *size)), "txt": b"a"}, {}, ("jpg", "txt")
        )
        found = decoder(sample, memoryview(np.zeros(1_000, np.uint8)))
        assert isinstance(found, DecodedSample) if kept else found.reason == rejects.IMAGE_UNDECODABLE


@given(st.sampled_from(sorted(IMAGES)), st.integers(0, 10**6), st.binary(max_size=30))
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_raise_only_sample_rejected(name, position, junk):
    data = bytearray(IMAGES[name]())
    at = position % len(data)
    data[at : at + len(junk)] = junk
    try:
        decode_image(bytes(data))
    except SampleRejected as rejected:
        assert rejected.reason in rejects.MEANINGS


@pytest.mark.parametrize(
    ("members", "too_large", "expected"),
    [
        ({"txt": b"a"}, {}, rejects.IMAGE_MISSING),
        ({"gif": b"x", "txt": b"a"}, {}, rejects.IMAGE_MISSING),
        ({"jpg": b"x"}, {}, rejects.CAPTION_MISSING),
        ({"jpg": b"x", "txt": b" \n\t\xc2\xa0"}, {}, rejects.CAPTION_EMPTY),
        ({"jpg": b"x", "txt": b"\xef\xbb\xbf"}, {}, rejects.CAPTION_EMPTY),
        ({"jpg": b"x", "txt": b"a"}, {}, rejects.IMAGE_UNDECODABLE),
        ({"txt": b"a"}, {"jpg": 99}, rejects.IMAGE_TOO_LARGE),
        ({"jpg": b"x"}, {"txt": 99}, rejects.CAPTION_TOO_LARGE),
    ],
)
def test_each_fault_has_its_reason(members, too_large, expected):
    found, _ = prepare(sample(too_large, **members))
    assert isinstance(found, Reject) and (found.key, found.reason) == ("k", expected)
    assert "\n" not in found.detail


def test_captions_are_decoded_and_stripped():
    assert decode_caption("  un café \n".encode()) == ("un café", False)
    assert decode_caption(b"\xef\xbb\xbfa") == ("a", False)
    assert decode_caption("café".encode("latin-1")) == ("caf\ufffd", True)


def test_notes_count_what_was_repaired():
    found, _ = prepare(sample({"json": 99}, jpg=encode_image(make_image(0)), txt=b"caf\xe9"))
    assert sorted(found.notes) == sorted([UID_FROM_HASH, JSON_BROKEN, CAPTION_REPLACED])


def test_captions_beyond_the_limit_are_counted_and_kept_whole():
    for length, expected in ((MAX_CHARACTERS, []), (MAX_CHARACTERS + 1, [CAPTION_CUT])):
        found, _ = prepare(sample(jpg=encode_image(make_image(0)), txt=b"a" * length))
        assert [note for note in found.notes if note == CAPTION_CUT] == expected
        assert len(found.caption) == length
