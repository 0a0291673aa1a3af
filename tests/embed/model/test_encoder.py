"""The encoder against open_clip's own loop, bit for bit."""

import sys

import numpy as np
import pytest
from PIL import Image

from d2prune.embed.decode import resize
from d2prune.embed.decode.resize import Pixels, Preprocess
from d2prune.embed.model.encoder import ClipEncoder
from d2prune.embed.model.sources import import_open_clip, resolve
from d2prune.errors import D2PruneError, UserError
from tests.embed.images import make_image

CAPTIONS = ["a red square", "a café", "word " * 200]


@pytest.fixture(scope="module")
def encoder(tiny_model):
    return ClipEncoder(resolve(str(tiny_model), None), device="cpu")


def pixels_of(encoder, images):
    return np.stack([encoder.preprocess(Pixels.of(image)) for image in images])


def own_loop(tiny_model, images, captions, precision="fp32"):
    open_clip = import_open_clip()
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
def test_embeddings_equal_open_clips_own_loop(tiny_model, precision):
    encoder = ClipEncoder(resolve(str(tiny_model), None), precision=precision, device="cpu")
    images = [make_image(i) for i in range(3)]
    found = encoder.encode(pixels_of(encoder, images), CAPTIONS)
    image, text = own_loop(tiny_model, images, CAPTIONS, precision)
    assert found.image_ND.tobytes() == image.astype(np.float16).tobytes()
    assert found.text_ND.tobytes() == text.astype(np.float16).tobytes()
    cosine = [
        sum(float(a) * float(b) for a, b in zip(x, y, strict=True)) for x, y in zip(image, text, strict=True)
    ]
    np.testing.assert_allclose(found.clip_score_N, cosine, rtol=0, atol=1e-7)


def test_shapes_and_norms(encoder):
    found = encoder.encode(pixels_of(encoder, [make_image(9)]), ["x"])
    assert encoder.dimension == 24 and encoder.preprocess.width == 32 and encoder.precision == "fp32"
    assert (found.image_ND.shape, found.image_ND.dtype) == ((1, 24), np.float16)
    assert found.clip_score_N.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found.text_ND.astype(np.float64), axis=1), 1, atol=1e-3)


def test_same_batch_gives_the_same_bits(encoder):
    pixels = pixels_of(encoder, map(make_image, range(5)))
    one, two = (encoder.encode(pixels, ["a"] * 5) for _ in range(2))
    assert one.image_ND.tobytes() == two.image_ND.tobytes()
    assert one.clip_score_N.tobytes() == two.clip_score_N.tobytes()


def test_checkpoints_load_and_pickles_are_refused(tiny_model, tmp_path, encoder):
    import safetensors.torch
    import torch

    state = safetensors.torch.load_file(tiny_model / "weights.safetensors")
    torch.save(state, tmp_path / "plain.pt")
    same = ClipEncoder(resolve("tiny-clip", str(tmp_path / "plain.pt")), device="cpu")
    pixels = pixels_of(encoder, [make_image(1)])
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
            ClipEncoder(resolve("tiny-clip", str(tmp_path / name)), device="cpu")


def test_unknown_precision_is_a_user_error(tiny_model):
    with pytest.raises(UserError, match="fp8: expected one of auto"):
        ClipEncoder(resolve(str(tiny_model), None), precision="fp8")


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    """A folder as on the hub: SigLIP's preprocessing, text tower and tokenizer, with random weights."""
    import json

    import safetensors.torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    open_clip = import_open_clip()
    folder = tmp_path_factory.mktemp("siglip")
    words = Tokenizer(
        models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "red": 4, "square": 5}, "<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>").save_pretrained(
        folder
    )
    model = {
        "embed_dim": 24,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8, "head_width": 32},
        "text_cfg": {
            "context_length": 16,
            "vocab_size": 6,
            "hf_tokenizer_name": "somewhere/else",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "width": 32,
            "heads": 2,
            "layers": 1,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
        },
    }
    half = [0.5, 0.5, 0.5]
    preprocess = {"mean": half, "std": half, "interpolation": "bicubic", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": model, "preprocess_cfg": preprocess})
    )
    made = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    safetensors.torch.save_file(made.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def test_siglip_with_its_own_preprocessing_and_tokenizer(siglip):
    encoder = ClipEncoder(resolve(str(siglip), None), device="cpu")
    assert encoder.preprocess == Preprocess(32, 32, "squash")
    images, captions = [make_image(1, 90, 40), make_image(2, 20, 70)], ["a red square", "A RED, square!"]
    found = encoder.encode(pixels_of(encoder, images), captions)

    import torch

    open_clip = import_open_clip()
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{siglip}")
    tokens = open_clip.get_tokenizer(f"local-dir:{siglip}")(captions)
    assert tokens[0].tolist() == tokens[1].tolist()
    with torch.no_grad():
        image = (
            model.eval()
            .encode_image(torch.stack([preprocess(one) for one in images]), normalize=True)
            .numpy()
        )
        text = model.encode_text(tokens, normalize=True).numpy()
    assert found.image_ND.tobytes() == image.astype(np.float16).tobytes()
    assert found.text_ND.tobytes() == text.astype(np.float16).tobytes()


def test_pixels_are_normalised_like_torchvision(encoder):
    import torch
    from torchvision.transforms import Compose

    values = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (256, 1, 3))
    theirs = Compose(encoder.transform.transforms[-2:])(Image.fromarray(np.ascontiguousarray(values)))
    assert torch.equal(encoder.normalise(torch.tensor(values)[None])[0], theirs)


def test_missing_tokenizer_package_is_a_user_error(siglip, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"needs transformers, which .* 'd2prune\[siglip\]'"):
        ClipEncoder(resolve(str(siglip), None), device="cpu")


def test_pixels_that_differ_from_open_clip_are_refused(tiny_model, monkeypatch):
    monkeypatch.setattr(resize, "_center", lambda resized, target: resize.Span(target, 0, 0))
    with pytest.raises(D2PruneError, match="differ from those of open_clip"):
        ClipEncoder(resolve(str(tiny_model), None), device="cpu")
