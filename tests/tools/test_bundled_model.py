"""The bundled model: small, held out from the bundled pool, and able to tell captions apart."""

import hashlib
import io
import json
import zlib

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image

from d2prune.bundled import MODEL_DIR, MODEL_NAME, MODEL_WEIGHTS, POOL_DIR
from d2prune.torchvision_shim import install_if_needed
from tools.evaluation import auc
from tools.make_pool import permute_across_groups

install_if_needed()

import open_clip  # noqa: E402


@pytest.fixture(scope="module")
def samples():
    """Samples without a fault, of half of the groups: (record, image, caption)."""
    tars = sorted(str(path) for path in POOL_DIR.glob("*.tar"))
    found = []
    for sample in webdataset.WebDataset(tars, shardshuffle=False, empty_check=False):
        record = json.loads(sample["json"])
        if "planted_fault" in record or zlib.crc32(str(record["group"]).encode()) % 2:
            continue
        (data,) = [sample[name] for name in ("jpg", "png", "webp") if name in sample]
        found.append((record, Image.open(io.BytesIO(data)).convert("RGB"), sample["txt"].decode()))
    return found


@pytest.fixture(scope="module")
def embedded(samples):
    open_clip.add_model_config(MODEL_DIR)
    model, _, preprocess = open_clip.create_model_and_transforms(MODEL_NAME, pretrained=str(MODEL_WEIGHTS))
    tokens = open_clip.get_tokenizer(MODEL_NAME)([text for _, _, text in samples])
    images = torch.stack([preprocess(image) for _, image, _ in samples])
    model.eval()
    with torch.inference_mode():
        image = torch.cat([model.encode_image(part, normalize=True) for part in images.split(256)])
        text = torch.cat([model.encode_text(part, normalize=True) for part in tokens.split(256)])
    return image.numpy(), text.numpy()


def test_model_is_small():
    assert sum(path.stat().st_size for path in MODEL_DIR.iterdir()) <= 10_000_000


@pytest.fixture(scope="module")
def held_out(samples, embedded):
    """Scores of correct captions [N] and of captions of other groups [5, N]; group sizes [N]."""
    image, text = embedded
    right = np.array([not record["planted_mismatch"] for record, _, _ in samples])
    groups = np.array([record["group"] for record, _, _ in samples])
    sizes = (groups[:, None] == groups).sum(1)[right]
    image, text, groups = image[right], text[right], groups[right]
    rng = np.random.default_rng(0)
    wrong = [(image * text[permute_across_groups(groups, rng)]).sum(1) for _ in range(5)]
    return (image * text).sum(1), np.stack(wrong), sizes


@pytest.fixture(scope="module")
def held_out_auc(held_out):
    matched, wrong, _ = held_out
    return auc(matched, wrong)


def test_auc_reaches_the_target_outside_large_groups(held_out):
    matched, wrong, sizes = held_out
    assert auc(matched[sizes < 10], wrong[:, sizes < 10]) >= 0.85


def test_auc_reaches_the_target(held_out_auc):
    assert held_out_auc >= 0.80


def test_auc_agrees_with_the_training_run(held_out_auc):
    facts = json.loads((MODEL_DIR / "training.json").read_text())
    # The training run evaluates all correct captions, on uncompressed pixels.
    assert held_out_auc == pytest.approx(facts["held_out_auc"], abs=0.02)


def test_auc_of_right_captions_against_planted_mismatches(samples, embedded):
    image, text = embedded
    score = (image * text).sum(1)
    planted = np.array([record["planted_mismatch"] for record, _, _ in samples])
    assert auc(score[~planted], score[planted]) >= 0.78


def test_training_held_out_exactly_this_pool():
    tars = sorted(str(path) for path in POOL_DIR.glob("*.tar"))
    pool = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False)
    sources = [json.loads(sample["json"])["source"] for sample in pool]
    digest = hashlib.sha256("\n".join(sorted(sources)).encode()).hexdigest()
    assert json.loads((MODEL_DIR / "training.json").read_text())["held_out_sources_sha256"] == digest
