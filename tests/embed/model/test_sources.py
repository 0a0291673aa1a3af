"""Models are found by every kind of name, identified by content, and mistakes name the option."""

import shutil

import pytest

from d2prune.embed.model import sources
from d2prune.errors import UserError


@pytest.mark.parametrize(
    ("model", "pretrained", "message"),
    [
        ("ViT-B-23", "openai", "did you mean ViT-B-32.*list them with d2prune models"),
        ("vit-l-14", "openai", "did you mean ViT-L-14"),
        ("ViT-B-32", None, "pretrained is missing.*random weights.*openai"),
        ("ViT-B-32", "", "pretrained is missing"),
        ("ViT-B-32", "opanai", "did you mean openai"),
        ("ViT-B-32", "/nowhere/weights.pt", "file does not exist"),
        ("ViT-L-14-quickgelu", "datacomp_xl_s13b_b90k", "has no such weights"),
        ("hf-hub:a/b", "openai", "has its own weights"),
        ("demo", "openai", "has its own weights"),
        ("local-dir:/nowhere", None, "folder does not exist"),
    ],
)
def test_usage_errors_name_the_option(model, pretrained, message):
    with pytest.raises(UserError, match=message):
        sources.resolve(model, pretrained)


def test_model_named_by_architecture_and_tag():
    tag = "datacomp_xl_s13b_b90k"
    assert sources.resolve("ViT-B/32", tag) == sources.ModelSource("ViT-B-32", tag)
    assert sources.identity("ViT-B/32", tag) == ("ViT-B-32", tag)
    assert sources.resolve("ViT-B-32-quickgelu", "openai").pretrained == "openai"


@pytest.mark.parametrize("model", ["ViT-L-14", "ViT-B-32", "ViT-B/32", "RN50"])
def test_weights_get_the_activation_they_were_trained_with(model):
    """`ViT-B-32/openai` is complete: only one architecture of that shape fits these weights."""
    found = sources.resolve(model, "openai")
    assert found.name == f"{model.replace('/', '-')}-quickgelu"
    assert sources.identity(model, "openai") == sources.identity(found.name, "openai")


def test_folder_is_identified_by_content_not_path(tiny_model, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    before = sources.identity(str(tiny_model), None)
    assert before == sources.identity(str(copy), None)
    assert "tiny-clip sha256:" in before[0] and before[1].startswith("sha256:")
    data = bytearray((copy / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "weights.safetensors").write_bytes(data)
    assert sources.identity(str(copy), None) != before


def test_folder_needs_one_config_and_one_checkpoint(tmp_path):
    with pytest.raises(UserError, match="found 0 and 0"):
        sources.resolve(str(tmp_path), None)


def test_checkpoint_file_of_a_named_architecture(tiny_model, tmp_path, monkeypatch):
    sources.import_open_clip().add_model_config(tiny_model / "tiny-clip.json")
    monkeypatch.chdir(tiny_model)
    source = sources.resolve("tiny-clip", "weights.safetensors")
    assert source.pretrained == str(tiny_model / "weights.safetensors")
    assert sources.identity("tiny-clip", "weights.safetensors")[1].startswith("sha256:")
    assert sources.make_absolute("tiny-clip", "weights.safetensors") == ("tiny-clip", source.pretrained)
