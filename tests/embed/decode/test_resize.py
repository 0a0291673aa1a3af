"""Pixels equal open_clip's preprocessing bit for bit: for every shape, mode, crop and format."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from d2prune.embed.decode import kernel, resize
from d2prune.embed.decode.decoder import Decoder
from d2prune.embed.decode.resize import Pixels, Preprocess, resizes_columns_first
from d2prune.embed.model import sources
from d2prune.inputs.rejects import SampleRejected
from tests.embed.images import encode_image, noise_image


@pytest.fixture(scope="module")
def theirs():
    """A function that returns open_clip's pixels [H, W, 3] before normalisation."""
    sources.import_open_clip()
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from torchvision.transforms import Compose

    def pixels(image, ours):
        cfg = PreprocessCfg(
            size=(ours.height, ours.width),
            resize_mode=ours.mode,
            interpolation="bilinear" if ours.bilinear else "bicubic",
            fill_color=ours.fill,
        )
        scaled = Compose(image_transform_v2(cfg, is_train=False).transforms[:-1])(image)
        return (scaled * 255).permute(1, 2, 0).numpy()

    return pixels


sides = st.one_of(st.integers(1, 12), st.integers(1, 150), st.integers(100, 300))
images = st.builds(noise_image, st.integers(0, 99), sides, sides)
target_sides = st.one_of(st.sampled_from([1, 2, 24, 32]), st.integers(1, 70))
preprocesses = st.builds(
    Preprocess,
    target_sides,
    target_sides,
    st.sampled_from(["shortest", "longest", "squash"]),
    st.booleans(),
    st.sampled_from([0, 77]),
)


@given(image=images, ours=preprocesses)
@settings(max_examples=100, deadline=None)
def test_pixels_equal_open_clip(theirs, image, ours):
    try:
        expected = theirs(image, ours)
    except ValueError as error:
        with pytest.raises(ValueError, match=str(error)):
            ours(Pixels.of(image))
    else:
        np.testing.assert_array_equal(ours(Pixels.of(image)), expected)


@given(image=images, resized=st.tuples(sides, sides), bilinear=st.booleans(), data=st.data())
@settings(max_examples=100, deadline=None)
def test_any_box_equals_pillows_resize_and_crop(image, resized, bilinear, data):
    lefts = [data.draw(st.integers(0, side - 1)) for side in resized]
    lengths = [data.draw(st.integers(1, side - left)) for side, left in zip(resized, lefts, strict=True)]
    order = resizes_columns_first(image.size, resized)
    found = kernel.resize(Pixels.of(image).source, image.size, resized, (*lefts, *lengths), bilinear, order)
    whole = image.resize(resized, Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC)
    expected = whole.crop((*lefts, *(left + length for left, length in zip(lefts, lengths, strict=True))))
    assert found.reshape(lengths[1], -1).tobytes() == expected.tobytes()


@pytest.mark.parametrize("size", [(1, 9_000), (9_000, 1), (1_501, 1_003), (17, 4_096)])
def test_large_and_narrow_images(theirs, size):
    image = noise_image(0, *size)
    for mode in ("squash", "longest"):
        ours = Preprocess(224, 224, mode)
        if min(ours.resized_size(*size)):
            np.testing.assert_array_equal(ours(Pixels.of(image)), theirs(image, ours))


def test_large_images_are_copied_in_bands(monkeypatch):
    image = noise_image(0, 21, 50)
    whole = Pixels.of(image).source[: 4 * 21 * 50].tobytes()
    for n_bytes in (1, 4 * 21 * 7, 4 * 21 * 49):
        monkeypatch.setattr(resize, "_BAND_BYTES", n_bytes)
        assert Pixels.of(image).source[: 4 * 21 * 50].tobytes() == whole


@pytest.mark.parametrize(
    ("rule", "size", "resized", "expected"),
    [
        ("never", (9, 2_000), (5, 5), False),
        ("very tall", (9, 901), (5, 5), True),
        ("very tall", (9, 900), (5, 5), False),
        ("very tall", (9, 901), (5, 901), False),
        ("much shorter", (20, 51), (10, 30), True),
        ("much shorter", (20, 50), (10, 30), False),
        ("much shorter", (20, 50), (30, 49), True),
        ("much shorter", (20, 50), (90, 51), False),
    ],
)
def test_order_of_passes_by_version_of_pillow(monkeypatch, rule, size, resized, expected):
    monkeypatch.setattr(resize, "_pillow_rule", lambda: rule)
    assert resize.resizes_columns_first(size, resized) is expected


def test_sums_beyond_a_byte_are_clipped():
    """Black beside white: bicubic weights overshoot on both sides."""
    edges = np.kron([[0, 255, 0], [255, 0, 255]], np.ones((3, 5))).astype(np.uint8)
    image = Image.fromarray(edges).convert("RGB")
    for size in ((37, 41), (4, 3)):
        order = resizes_columns_first(image.size, size)
        found = kernel.resize(Pixels.of(image).source, image.size, size, (0, 0, *size), False, order)
        assert found.reshape(size[1], -1).tobytes() == image.resize(size, Image.Resampling.BICUBIC).tobytes()


SAVED = {
    "jpeg-444": ("JPEG", {"subsampling": 0}),
    "jpeg-422": ("JPEG", {"subsampling": 1}),
    "jpeg-420": ("JPEG", {"subsampling": 2}),
    "jpeg-progressive": ("JPEG", {"progressive": True, "subsampling": 2}),
    "jpeg-restarts": ("JPEG", {"restart_marker_blocks": 1, "optimize": True}),
    "jpeg-rgb": ("JPEG", {"keep_rgb": True}),
    "jpeg-profile": ("JPEG", {"icc_profile": b"x" * 70_000, "comment": b"c"}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {}),
    "webp-lossless": ("WEBP", {"lossless": True}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
    "tiff": ("TIFF", {"compression": "tiff_lzw"}),
}
MODES = {"JPEG": ["RGB", "L", "CMYK"], "PNG": ["RGB", "L", "LA", "RGBA", "P", "1", "I;16"]}


@given(data=st.data(), image=images, name=st.sampled_from(sorted(SAVED)), ours=preprocesses)
@settings(max_examples=100, deadline=None)
def test_stored_images_of_every_format(data, image, name, ours):
    """Decoded and resized, they are what Pillow opens, converts and resizes; EXIF orientation is ignored."""
    kind, options = SAVED[name]
    mode = data.draw(st.sampled_from(MODES.get(kind, ["RGB"])))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 3)
    else:
        image = image.convert(mode)
    if kind == "JPEG":
        exif = Image.Exif()
        exif[0x0112] = data.draw(st.integers(1, 8))
        options = {**options, "exif": exif, "quality": data.draw(st.integers(1, 100))}
        if mode != "RGB":
            options.pop("keep_rgb", None)
    stored = encode_image(image, kind, **options)
    if not min(ours.resized_size(*image.size)):
        with pytest.raises(SampleRejected, match="leaves no pixel"):
            Decoder(ours, 10**9).decode_image(stored)
        return
    found = Decoder(ours, 10**9).decode_image(stored)
    with Image.open(io.BytesIO(stored)) as opened:
        expected = opened.convert("RGB")
    assert (found.width, found.height) == expected.size
    colors = found.source[: 4 * found.width * found.height].reshape(-1, 4)[:, :3]
    assert colors.tobytes() == expected.tobytes()
    np.testing.assert_array_equal(ours(found), ours(Pixels.of(expected)))
