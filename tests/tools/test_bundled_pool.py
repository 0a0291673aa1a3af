"""The bundled pool: small, complete, and with exactly the planted faults."""

import hashlib
import io
import json
from collections import Counter
from pathlib import Path

import pytest
import webdataset
from PIL import Image

from d2prune.bundled import POOL_DIR
from tools.clipart import ImageRecord, is_unfit
from tools.dataset import POOL_SIZE
from tools.make_pool import FAULTS, MISMATCH_SHARE

IMAGES = ("jpg", "png", "webp")


@pytest.fixture(scope="module")
def samples():
    tars = sorted(str(path) for path in POOL_DIR.glob("*.tar"))
    found = list(webdataset.WebDataset(tars, shardshuffle=False, empty_check=False))
    return [sample | {"record": json.loads(sample["json"])} for sample in found]


def image_of(sample):
    (extension,) = [name for name in IMAGES if name in sample]
    return extension, sample[extension]


def test_tars_are_small_and_numbered_without_gaps():
    tars = sorted(POOL_DIR.iterdir())
    assert [path.name for path in tars] == [f"{index:08d}.tar" for index in range(len(tars))]
    assert 6 <= len(tars) <= 8
    assert sum(path.stat().st_size for path in tars) <= 8_000_000


def test_every_sample_has_an_image_a_record_and_a_unique_uid(samples):
    assert len(samples) == POOL_SIZE
    assert len({sample["__key__"] for sample in samples}) == POOL_SIZE
    for sample in samples:
        record = sample["record"]
        assert image_of(sample)
        assert record["uid"] == hashlib.sha256(record["source"].encode()).hexdigest()[:32]
        assert record["title"]
        assert record["source"].startswith("openclipart-png:")
        assert isinstance(record["planted_mismatch"], bool)
    assert len({sample["record"]["uid"] for sample in samples}) == POOL_SIZE


def test_all_images_decode_and_are_small_except_planted_faults(samples):
    formats = Counter()
    for sample in samples:
        extension, data = image_of(sample)
        formats[extension] += 1
        if sample["record"].get("planted_fault") == "truncated_image":
            with pytest.raises(OSError):
                Image.open(io.BytesIO(data)).load()
            continue
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            assert image.width == image.height <= 128
            assert image.format == {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[extension]
    assert all(formats[extension] >= 100 for extension in IMAGES)


def test_all_captions_are_present_except_planted_faults(samples):
    for sample in samples:
        fault = sample["record"].get("planted_fault")
        assert ("txt" in sample) == (fault != "missing_caption")
        if fault is None:
            assert sample["txt"].decode().strip()
        if fault == "empty_caption":
            assert sample["txt"] == b""
    faults = Counter(sample["record"].get("planted_fault") for sample in samples)
    assert {fault: faults[fault] for fault in FAULTS} == dict.fromkeys(FAULTS, 2)


def test_exactly_the_planted_mismatches_have_the_caption_of_another_image(samples):
    planted = [sample for sample in samples if sample["record"]["planted_mismatch"]]
    assert len(planted) == round(MISMATCH_SHARE * POOL_SIZE)
    for sample in samples:
        record = sample["record"]
        if "planted_fault" not in record and not record["planted_mismatch"]:
            assert sample["txt"].decode().startswith(record["title"])
    assert not any(sample["txt"].decode().startswith(sample["record"]["title"] + ",") for sample in planted)
    # Their captions are a permutation.
    titles = Counter(sample["record"]["title"] for sample in planted)
    captions = [sample["txt"].decode() for sample in planted]
    assert all(any(text.startswith(title) for text in captions) for title in titles)


def test_pool_has_no_unsuitable_words(samples):
    for sample in samples:
        record, text = sample["record"], sample.get("txt", b"").decode()
        assert not is_unfit(ImageRecord(Path(), record["title"], (text,), record["source"], ""))


def test_no_content_group_dominates_the_pool(samples):
    groups = Counter(sample["record"]["group"] for sample in samples)
    assert max(groups.values()) <= 40
    assert len(groups) >= 700
