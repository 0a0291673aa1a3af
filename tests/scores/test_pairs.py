"""s-CLIPLoss and NormSim equal their definitions, written naively in float64."""

import numpy as np
import pytest

from d2prune.errors import UserError
from d2prune.scores import norm_sim, pairs, s_clip_loss


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def pool(n, d=16, seed=0, noise=0.7):
    rng = np.random.default_rng(seed)
    image = unit(rng.normal(size=(n, d)))
    return image.astype(np.float32), unit(image + noise * rng.normal(size=(n, d))).astype(np.float32)


def naive_s_clip_loss(image, text, temperature, references):
    cosine = image.astype(np.float64) @ text.astype(np.float64).T
    score = np.zeros(len(image))
    for reference in references:
        for i in range(len(image)):
            others = sorted({*reference.tolist(), i})
            own = cosine[i, i] / temperature
            of_image = np.logaddexp.reduce(cosine[i, others] / temperature)
            of_text = np.logaddexp.reduce(cosine[others, i] / temperature)
            score[i] += temperature * (own - (of_image + of_text) / 2)
    return score / len(references)


@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0, 1e-4, 100.0])
@pytest.mark.parametrize(("size", "count"), [(50, 1), (20, 3), (1, 2), (10_000, 1)])
def test_s_clip_loss_equals_its_definition(temperature, size, count):
    image, text = pool(150)
    references = pairs.draw_references(150, size, count, seed=5)
    assert all(len(set(r.tolist())) == min(size, 150) for r in references)
    expected = naive_s_clip_loss(image, text, temperature, references)
    found = s_clip_loss(image, text, temperature, size, count, seed=5)
    assert found.dtype == np.float32 and (found <= 1e-6).all()
    assert np.allclose(found, expected, atol=2e-6 * max(1, temperature))


def test_blocks_threads_and_dtype_change_nothing(monkeypatch):
    image, text = pool(150)
    expected = s_clip_loss(image, text, 0.02, 90, 2)
    monkeypatch.setattr(pairs, "_ROWS", 32)
    monkeypatch.setattr(pairs, "_COLUMNS", 13)
    assert np.allclose(s_clip_loss(image, text, 0.02, 90, 2, threads=2), expected, atol=1e-6)
    assert np.allclose(s_clip_loss(3 * image.astype(np.float64), text, 0.02, 90, 2), expected, atol=1e-6)


@pytest.mark.parametrize("n", [1, 2])
def test_tiny_and_identical_pools(n):
    image, text = pool(n)
    assert np.allclose(s_clip_loss(image, text), naive_s_clip_loss(image, text, 0.01, [np.arange(n)] * 5))
    same = np.tile(image[:1], (40, 1)), np.tile(text[:1], (40, 1))
    assert np.allclose(s_clip_loss(*same), -0.01 * np.log(40), atol=1e-6)


def test_a_specific_caption_beats_one_that_fits_everything():
    image, text = pool(200, noise=0.2)
    text[7] = unit(image.sum(axis=0, keepdims=True))[0]
    assert np.argmin(s_clip_loss(image, text)) == 7


@pytest.mark.parametrize("p", [2, np.inf])
def test_norm_sim_equals_its_definition(p, monkeypatch):
    image, _ = pool(150)
    target, _ = pool(70, seed=9)
    expected = np.linalg.norm(image.astype(np.float64) @ target.astype(np.float64).T, ord=p, axis=1)
    assert np.allclose(norm_sim(image, target, p), expected, atol=1e-5)
    monkeypatch.setattr(pairs, "_COLUMNS", 11)
    assert np.allclose(norm_sim(image, 5 * target, p, threads=2), expected, atol=1e-5)
    assert np.allclose(norm_sim(image, image[:1], p), np.abs(image @ image[0]), atol=1e-5)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda x: s_clip_loss(x, x[:, :3]), r"text_emb: found shape \(20, 3\); expected \(20, 16\)"),
        (lambda x: s_clip_loss(x, x, temperature=0), "temperature: found 0; expected 0.0001 to 10,000"),
        (lambda x: s_clip_loss(x, x, temperature=float("nan")), "temperature: found nan"),
        (lambda x: s_clip_loss(x, x, reference_size=0), "reference_size and n_references: found 0 and 5"),
        (lambda x: s_clip_loss(0 * x, x), "embedding of row 0: found"),
        (lambda x: norm_sim(x, x[:, :3]), r"target_emb: found shape \(20, 3\); expected rows of 16"),
        (lambda x: norm_sim(x, x[:0]), "target_emb: found 0 rows"),
        (lambda x: norm_sim(x, x, 3), "p: found 3; expected 2 or infinity"),
    ],
)
def test_wrong_arguments_are_one_line(call, line):
    with pytest.raises(UserError, match=line):
        call(pool(20)[0])
