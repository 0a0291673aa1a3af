"""The encoder against open_clip's own loop, bit for bit."""

import numpy as np
import pytest

from pipeline.embed import models
from pipeline.embed.clip import ClipEncoder
from pipeline.errors import UserError
from tests.embed.pictures import picture

CAPTIONS = ["a red square", "a café", "word " * 200]


@pytest.fixture(scope="module")
def encoder(tiny_model):
    return ClipEncoder(models.resolve(str(tiny_model), None), device="cpu")


def pixels_of(encoder, images):
    return np.stack([np.asarray(encoder.preprocess(image)) for image in images])


def own_loop(tiny_model, images, captions, precision="fp32"):
    open_clip = models.import_open_clip()
    import torch

    model, _, preprocess = open_clip.create_model_and_transforms(
        "tiny-clip", pretrained=str(tiny_model / "weights.safetensors"), precision=precision
    )
    tokenizer = open_clip.get_tokenizer("tiny-clip")
    model.eval()
    with torch.no_grad():
        batch = torch.stack([preprocess(image) for image in images]).to(open_clip.get_input_dtype(precision))
        image = model.encode_image(batch, normalize=precision == "fp32")
        text = model.encode_text(tokenizer(captions), normalize=precision == "fp32")
    return [
        torch.nn.functional.normalize(x.float(), dim=-1).numpy() if precision != "fp32" else x.numpy()
        for x in (image, text)
    ]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_equals_open_clips_own_loop(tiny_model, precision):
    encoder = ClipEncoder(models.resolve(str(tiny_model), None), precision=precision, device="cpu")
    images = [picture(i) for i in range(3)]
    found = encoder.encode(pixels_of(encoder, images), CAPTIONS)
    image, text = own_loop(tiny_model, images, CAPTIONS, precision)
    assert found.image_ND.tobytes() == image.astype(np.float16).tobytes()
    assert found.text_ND.tobytes() == text.astype(np.float16).tobytes()
    cosine = [sum(float(a) * float(b) for a, b in zip(x, y, strict=True)) for x, y in zip(image, text, strict=True)]
    np.testing.assert_allclose(found.clip_score_N, cosine, rtol=0, atol=1e-7)


def test_shapes_and_norms(encoder):
    found = encoder.encode(pixels_of(encoder, [picture(9)]), ["x"])
    assert encoder.dimension == 24 and encoder.preprocess.width == 32 and encoder.precision == "fp32"
    assert (found.image_ND.shape, found.image_ND.dtype) == ((1, 24), np.float16)
    assert found.clip_score_N.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found.text_ND.astype(np.float64), axis=1), 1, atol=1e-3)


def test_same_batch_same_bits(encoder):
    pixels = pixels_of(encoder, map(picture, range(5)))
    one, two = (encoder.encode(pixels, ["a"] * 5) for _ in range(2))
    assert one.image_ND.tobytes() == two.image_ND.tobytes()
    assert one.clip_score_N.tobytes() == two.clip_score_N.tobytes()


def test_torch_checkpoint_and_pickles(tiny_model, tmp_path, encoder):
    import safetensors.torch
    import torch

    state = safetensors.torch.load_file(tiny_model / "weights.safetensors")
    torch.save(state, tmp_path / "plain.pt")
    same = ClipEncoder(models.resolve("tiny-clip", str(tmp_path / "plain.pt")), device="cpu")
    pixels = pixels_of(encoder, [picture(1)])
    assert same.encode(pixels, ["a"]).image_ND.tobytes() == encoder.encode(pixels, ["a"]).image_ND.tobytes()

    class Harmful:
        def __reduce__(self):
            return (print, ("ran code from a checkpoint",))

    torch.save({"state_dict": Harmful()}, tmp_path / "harmful.pt")
    (tmp_path / "junk.safetensors").write_bytes(b"junk" * 10)
    (tmp_path / "junk.pt").write_bytes(b"junk" * 10)
    state.pop("positional_embedding")
    torch.save(state, tmp_path / "misfit.pt")
    for name in ("harmful.pt", "junk.safetensors", "junk.pt", "misfit.pt"):
        with pytest.raises(UserError, match="tiny-clip"):
            ClipEncoder(models.resolve("tiny-clip", str(tmp_path / name)), device="cpu")


def test_precision_is_checked(tiny_model):
    with pytest.raises(UserError, match="fp8: expected one of auto"):
        ClipEncoder(models.resolve(str(tiny_model), None), precision="fp8")
