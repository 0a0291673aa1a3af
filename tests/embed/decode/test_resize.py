"""`exact` equals open_clip's preprocessing bit for bit, for every shape and mode; `fast` is close."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from d2prune.embed.decode.decoder import Decoder
from d2prune.embed.decode.resize import Preprocess
from d2prune.embed.model import sources
from tests.embed.images import encode_image, make_image


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


sides = st.integers(6, 150)


@given(
    image=st.builds(make_image, st.integers(0, 99), sides, sides),
    ours=st.builds(
        Preprocess,
        st.sampled_from([24, 32, 41]),
        st.sampled_from([24, 32, 41]),
        st.sampled_from(["shortest", "longest", "squash"]),
        st.booleans(),
        st.sampled_from([0, 77]),
    ),
)
@settings(max_examples=100, deadline=None)
def test_exact_pixels_equal_open_clip(theirs, image, ours):
    np.testing.assert_array_equal(np.asarray(ours(image)), theirs(image, ours))


def photo_like(width, height):
    """Return a smooth image with some texture, which resizes like a photo."""
    rng = np.random.default_rng(width)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    noise = rng.normal(0, 4, (height, width, 3))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("size", [(40, 40), (50, 300), (150, 90), (700, 1100), (1200, 1200)])
def test_fast_is_close_to_exact_and_decodes_less(size):
    data = encode_image(photo_like(*size), "JPEG", quality=92)
    images = {}
    for method in ("exact", "fast"):
        decoder = Decoder(Preprocess(64, 64, method=method), max_pixels=10**7)
        decoded = decoder.decode_image(data)
        assert (decoded.width, decoded.height) == size
        images[method] = np.asarray(decoder.preprocess(decoded.image)).astype(int)
        if method == "fast":
            # At least twice the resized size, so that the resize has something to average.
            smaller = decoded.image.width < size[0]
            assert smaller == (min(size) >= 4 * 64) and min(decoded.image.size) >= min(2 * 64, *size)
    assert np.abs(images["fast"] - images["exact"]).mean() < 2


def test_fast_decodes_other_formats_at_full_size():
    decoder = Decoder(Preprocess(16, 16, method="fast"), max_pixels=10**7)
    for kind in ("PNG", "WEBP", "GIF"):
        assert decoder.decode_image(encode_image(photo_like(200, 300), kind)).image.size == (200, 300)


@pytest.mark.parametrize("mode", ["CMYK", "L"])
def test_fast_reads_every_kind_of_jpeg(mode):
    decoder = Decoder(Preprocess(16, 16, method="fast"), max_pixels=10**7)
    data = encode_image(photo_like(300, 200).convert(mode), "JPEG", progressive=mode == "L")
    with Image.open(io.BytesIO(data)) as image:
        whole = np.asarray(Preprocess(16, 16)(image.convert("RGB"))).astype(int)
    found = decoder.decode_image(data).image
    assert found.mode == "RGB" and found.size == (75, 50)
    assert np.abs(np.asarray(decoder.preprocess(found)) - whole).mean() < 3
