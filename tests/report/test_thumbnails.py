import base64
import io

import numpy as np
import pytest
from PIL import Image

from d2prune.report.thumbnails import ImageSource, data_uri, make_thumbnails
from tests.report.synthetic import Item, encode_image, write_tar


def encoded(image, form, **options):
    sink = io.BytesIO()
    image.save(sink, form, **options)
    return sink.getvalue()


def decoded(uri):
    assert uri.startswith("data:image/webp;base64,")
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


@pytest.mark.parametrize(
    ("mode", "form"),
    [("RGB", "JPEG"), ("CMYK", "JPEG"), ("L", "PNG"), ("P", "PNG"), ("1", "PNG"), ("RGBA", "WEBP")],
)
def test_every_mode_gives_a_thumbnail(mode, form):
    small = decoded(data_uri(encoded(Image.new(mode, (400, 200)), form), 10**6))
    assert small.size == (120, 60)


def test_transparent_pixels_become_white():
    small = decoded(data_uri(encoded(Image.new("RGBA", (50, 50), (0, 0, 0, 0)), "PNG"), 10**6))
    assert small.convert("RGB").getpixel((25, 25)) == (255, 255, 255)


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (200, 100))
    exif = image.getexif()
    exif[274] = 6
    assert decoded(data_uri(encoded(image, "JPEG", exif=exif), 10**6)).size == (60, 120)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"junk",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        encoded(Image.new("RGB", (99, 99)), "PNG")[:60],
    ],
)
def test_undecodable_bytes_give_nothing(payload):
    assert data_uri(payload, 10**6) == ""


def test_large_images_are_not_decoded():
    payload = encoded(Image.new("1", (2000, 2000)), "PNG")
    assert data_uri(payload, 3_999_999) == ""
    assert data_uri(payload, 4_000_000)


def test_thumbnails_are_in_order_and_stop_at_the_budget(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(f"{i}", Item(encode_image(rng, (60 * i, 0, 0)), "c", None, None)) for i in range(4)]
    ranges = write_tar(tmp_path / "a.tar", rows)
    sources = [ImageSource(str(tmp_path / "a.tar"), offset, size) for offset, size in ranges]
    sources.insert(2, ImageSource(str(tmp_path / "gone.tar"), 0, 512))
    sources.insert(3, ImageSource(sources[0].url, 100, 512))
    everything = make_thumbnails(sources, 10**6, 10**6)
    assert [bool(uri) for uri in everything] == [True, True, False, False, True, True]
    reds = [decoded(uri).convert("RGB").getpixel((20, 20))[0] for uri in everything if uri]
    assert reds == sorted(reds)
    room = len(everything[0]) + len(everything[1])
    assert [bool(uri) for uri in make_thumbnails(sources, 10**6, room)] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]
