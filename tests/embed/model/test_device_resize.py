"""Resizing on the device: within 2 of 255 of Pillow, for every shape and mode."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.embed.decode.decoder import DecodedSample, Decoder
from d2prune.embed.decode.resize import Pixels, Preprocess
from d2prune.embed.model.device_resize import DeviceResizer, Source
from d2prune.inputs.tar.reader import TarSample
from tests.embed.images import encode_image, noise_image


def resize_on_device(images, preprocess):
    """Return the pixels of images by a resizer on the CPU."""
    import torch

    torch.set_num_threads(1)
    resizer = DeviceResizer(preprocess, "cpu")
    slots = np.zeros((len(images), max(3 * image.width * image.height for image in images)), np.uint8)
    for slot, image in zip(slots, images, strict=True):
        slot[: 3 * image.width * image.height] = np.frombuffer(image.tobytes(), np.uint8)
    # Slots in another order than the batch.
    order = list(range(len(images)))[::-1]
    sources = [Source(order[i], 0, image.width, image.height) for i, image in enumerate(images)]
    return resizer.resize(resizer.gather(slots[::-1], sources)).numpy()


sides = st.one_of(st.integers(1, 12), st.integers(1, 130))


@given(
    images=st.lists(st.builds(noise_image, st.integers(0, 99), sides, sides), min_size=1, max_size=4),
    preprocess=st.builds(
        Preprocess,
        st.sampled_from([5, 24, 41]),
        st.sampled_from([24, 32]),
        st.sampled_from(["shortest", "longest", "squash"]),
        st.booleans(),
        st.sampled_from([0, 77]),
    ),
)
@settings(max_examples=25, deadline=None)
def test_pixels_are_within_two_of_pillow(images, preprocess):
    images = [image for image in images if min(preprocess.resized_size(*image.size))]
    if not images:
        return
    found = resize_on_device(images, preprocess)
    expected = np.stack([preprocess(Pixels.of(image)) for image in images])
    assert found.shape == expected.shape and found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected).max() <= 2


def test_photo_sizes_are_nearly_exact_and_resized_ones_stay():
    preprocess = Preprocess(224, 224)
    images = [
        noise_image(i, *size) for i, size in enumerate([(500, 400), (333, 512), (224, 224), (640, 480)])
    ]
    found = resize_on_device(images, preprocess).astype(int)
    expected = np.stack([preprocess(Pixels.of(image)) for image in images])
    assert np.abs(found - expected).max() <= 1 and (found != expected).mean() < 0.002
    np.testing.assert_array_equal(found[2], expected[2])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_decoder_writes_whole_images_up_to_a_size(kind):
    image = noise_image(0, 50, 30)
    stored = encode_image(image, kind)
    sample = TarSample("k", 0, 512, {"jpg": stored, "txt": b"a"}, {}, ("jpg", "txt"))
    preprocess, other = Preprocess(16, 16), Preprocess(8, 8)
    for whole_bytes, whole in ((3 * 50 * 30, True), (3 * 50 * 30 - 1, False)):
        decoder = Decoder(preprocess, 10**6, others=(other,), whole_bytes=whole_bytes)
        slot = np.zeros(5_000, np.uint8)
        found = decoder(sample, memoryview(slot))
        assert isinstance(found, DecodedSample) and found.whole is whole
        assert (found.width, found.height) == (50, 30)
        pixels = decoder.decode_image(stored)
        if whole:
            colors = pixels.source[: 4 * 50 * 30].reshape(-1, 4)[:, :3]
            assert slot[: 3 * 50 * 30].tobytes() == colors.tobytes()
        else:
            expected = b"".join(each(pixels).tobytes() for each in (preprocess, other))
            assert slot[: len(expected)].tobytes() == expected


@pytest.mark.parametrize(("size", "whole"), [((1024, 2), True), ((1025, 2), False), ((2, 1025), False)])
def test_long_images_are_not_written_whole(size, whole):
    stored = encode_image(noise_image(0, *size))
    sample = TarSample("k", 0, 512, {"jpg": stored, "txt": b"a"}, {}, ("jpg", "txt"))
    decoder = Decoder(Preprocess(16, 16, mode="squash"), 10**6, whole_bytes=1 << 20)
    found = decoder(sample, memoryview(np.zeros(8_000, np.uint8)))
    assert isinstance(found, DecodedSample) and found.whole is whole
