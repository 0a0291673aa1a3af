import shutil

import pytest

from d2prune.embed.model import names
from d2prune.errors import UserError


@pytest.mark.parametrize(
    ("model", "pretrained", "message"),
    [
        ("ViT-B-23", "openai", "did you mean ViT-B-32.*list them with d2prune models"),
        ("vit-l-14", "openai", "did you mean ViT-L-14"),
        ("ViT-B-32", None, "pretrained is missing.*random weights.*openai"),
        ("ViT-B-32", "", "pretrained is missing"),
        ("ViT-B-32", "opanai", "did you mean openai"),
        ("ViT-B-32", "/nowhere/weights.pt", "no such file"),
        ("ViT-L-14", "openai", "trained with QuickGELU.*use embed.model=ViT-L-14-quickgelu"),
        ("ViT-L-14-quickgelu", "datacomp_xl_s13b_b90k", "has no such weights"),
        ("hf-hub:a/b", "openai", "brings its own weights"),
        ("demo", "openai", "brings its own weights"),
        ("local-dir:/nowhere", None, "no such folder"),
    ],
)
def test_mistakes_are_named(model, pretrained, message):
    with pytest.raises(UserError, match=message):
        names.resolve(model, pretrained)


def test_named_model():
    tag = "datacomp_xl_s13b_b90k"
    assert names.resolve("ViT-B/32", tag) == names.ModelSource("ViT-B-32", tag)
    assert names.identity("ViT-B/32", tag) == ("ViT-B-32", tag)
    assert names.resolve("ViT-B-32-quickgelu", "openai").pretrained == "openai"


def test_folder_is_known_by_content_not_by_place(tiny_model, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    before = names.identity(str(tiny_model), None)
    assert before == names.identity(str(copy), None)
    assert "tiny-clip sha256:" in before[0] and before[1].startswith("sha256:")
    data = bytearray((copy / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "weights.safetensors").write_bytes(data)
    assert names.identity(str(copy), None) != before


def test_folder_needs_one_config_and_one_checkpoint(tmp_path):
    with pytest.raises(UserError, match="found 0 and 0"):
        names.resolve(str(tmp_path), None)


def test_checkpoint_file_of_a_named_architecture(tiny_model, tmp_path, monkeypatch):
    names.import_open_clip().add_model_config(tiny_model / "tiny-clip.json")
    monkeypatch.chdir(tiny_model)
    source = names.resolve("tiny-clip", "weights.safetensors")
    assert source.pretrained == str(tiny_model / "weights.safetensors")
    assert names.identity("tiny-clip", "weights.safetensors")[1].startswith("sha256:")
    assert names.absolute("tiny-clip", "weights.safetensors") == ("tiny-clip", source.pretrained)
