"""Short names of models."""

import pytest

from d2prune.config.model_names import check_names, name_models, split_model


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ViT-B-32/openai", ("ViT-B-32", "openai")),
        ("ViT-B-32//data/weights.pt", ("ViT-B-32", "/data/weights.pt")),
        ("ViT-B-32/weights/own.pt", ("ViT-B-32", "weights/own.pt")),
        ("ViT-B-32", ("ViT-B-32", None)),
        ("demo", ("demo", None)),
        ("hf-hub:org/name", ("hf-hub:org/name", None)),
        ("./models/mine", ("./models/mine", None)),
        ("/models/mine", ("/models/mine", None)),
    ],
)
def test_model_and_weights_are_split(text, expected):
    assert split_model(text) == expected


def test_short_names_are_those_of_datacomp():
    texts = ["ViT-B-32/openai", "ViT-L-14/openai", "hf-hub:timm/ViT-B-16-SigLIP", "/models/mine/", "demo"]
    assert list(name_models(texts)) == ["b32", "l14", "b16siglip", "mine", "demo"]
    with pytest.raises(ValueError, match="ViT-B-32/a and ViT-B-32/b would both be named b32"):
        name_models(["ViT-B-32/a", "ViT-B-32/b"])


@pytest.mark.parametrize("models", [{"score": "a/b"}, {"b-32": "a/b"}, {"": "a/b"}, {"b32": ""}])
def test_invalid_names_are_refused(models):
    with pytest.raises(ValueError, match="expected"):
        check_names(models)
