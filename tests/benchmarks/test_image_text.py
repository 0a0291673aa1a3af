"""The image-text benchmark: planted noise, scores, methods, training, resuming, tables."""

import functools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks.image_text import __main__ as image_text
from benchmarks.image_text import data as image_text_data
from benchmarks.image_text import model as image_text_model
from benchmarks.image_text.data import COPIES, WRONG, Drawings, NoisyPool, bundled, common_categories, plant
from benchmarks.image_text.methods import METHODS, Chooser, diversity
from benchmarks.image_text.model import Recipe, Trainer, recalls
from benchmarks.image_text.report import RESULTS, SUBSET, TRAINED, markdown, summarise, svg
from benchmarks.image_text.scores import Evidence, cross_fitted_score, score_auc
from d2prune.d2.coreset import d2_prune
from d2prune.errors import UserError


@pytest.fixture(scope="module")
def clean():
    return bundled(150)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def evidence_of(n=120, seed=0):
    rng = np.random.default_rng(seed)
    return Evidence(unit(rng.normal(size=(n, 12))), unit(rng.normal(size=(n, 6))), rng.normal(size=n))


def test_pool_and_test_set_share_no_content_group(clean):
    pool, tested = clean
    assert len(pool.captions) + len(tested.captions) == 150 and len(tested.captions) > 20
    assert not set(pool.groups.tolist()) & set(tested.groups.tolist())
    pairs = image_text_data.one_per_group(tested)
    assert sorted(pairs.groups.tolist()) == sorted(set(tested.groups.tolist()))


def test_noise_is_planted_as_recorded(clean):
    pool, _ = clean
    noisy = plant(pool, seed=3)
    n = len(pool.captions)
    assert len(noisy.original) == n + round(n * COPIES / (1 - COPIES))
    assert set(noisy.original.tolist()) == set(range(n))
    assert np.array_equal(noisy.drawings.groups, pool.groups[noisy.original])
    for row, (original, wrong) in enumerate(zip(noisy.original, noisy.wrong, strict=True)):
        words = Counter(noisy.drawings.captions[row].split(", "))
        assert (words == Counter(pool.captions[original].split(", "))) or wrong
        if not wrong:
            assert noisy.drawings.captions[row].split(", ")[0] == pool.captions[original].split(", ")[0]
    # A share of the drawings, not of the pool: a drawing with a wrong caption may have copies.
    wrong_drawings = {
        int(original) for original, wrong in zip(noisy.original, noisy.wrong, strict=True) if wrong
    }
    assert len(wrong_drawings) == round(WRONG * n)
    unaltered = [
        np.array_equal(image, pool.images[original])
        for image, original in zip(noisy.drawings.images, noisy.original, strict=True)
    ]
    assert sum(unaltered) == n
    again = plant(pool, seed=3)
    assert again.drawings.captions == noisy.drawings.captions
    assert np.array_equal(again.drawings.images, noisy.drawings.images)


def test_wrong_captions_are_from_another_content_group(clean):
    pool, _ = clean
    noisy = plant(pool)
    texts = [
        (sorted(text.split(", ")), group) for text, group in zip(pool.captions, pool.groups, strict=True)
    ]
    for row in np.flatnonzero(noisy.wrong):
        words = sorted(noisy.drawings.captions[row].split(", "))
        assert any(text == words and group != noisy.drawings.groups[row] for text, group in texts)


def test_missing_clip_art_is_a_usage_error(tmp_path):
    with pytest.raises(UserError, match="install openclipart-png"):
        image_text_data.clip_art(tmp_path, tmp_path / "cache")


def test_downscaled_drawings_are_read_from_the_cache(clean, tmp_path, monkeypatch):
    # `load` returns the test set first.
    monkeypatch.setattr(image_text_data, "load", lambda *_, **__: (clean[1], clean[0]))
    monkeypatch.setattr(image_text_data, "_downscale", lambda drawings: drawings)
    first = image_text_data.clip_art(Path("nowhere"), tmp_path)
    monkeypatch.setattr(image_text_data, "load", None)
    again = image_text_data.clip_art(Path("nowhere"), tmp_path)
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one.images, other.images) and np.array_equal(one.groups, other.groups)
        assert (one.captions, one.categories) == (other.captions, other.categories)
    assert again[1].captions == clean[1].captions


def test_common_categories():
    names = ["a"] * 3 + ["b"] * 2 + ["unsorted"] * 9 + ["special"] * 9
    assert common_categories(names, 2) == ["a", "b"] and common_categories(names, 3) == ["a"]


def test_score_separates_wrong_captions_in_linear_data():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(400, 20))
    text = image @ rng.normal(size=(20, 10)) + rng.normal(size=(400, 10))
    wrong = np.arange(400) < 100
    text[wrong] = text[np.roll(np.flatnonzero(wrong), 1)]
    score = cross_fitted_score(unit(image), unit(text), np.arange(400))
    assert score_auc(score, wrong) > 0.9


def test_score_is_fitted_on_other_content_groups():
    # Images predict captions within a group, but not across groups.
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(60), 8)
    image = unit((rng.normal(size=(60, 80)) + 0.01)[groups] + 0.01 * rng.normal(size=(480, 80)))
    text = unit(rng.normal(size=(60, 16))[groups])
    assert abs(cross_fitted_score(image, text, groups).mean()) < 0.1
    # If every row is its own group, the fit contains the other seven rows of its former group.
    assert cross_fitted_score(image, text, np.arange(480)).mean() > 0.9


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_the_requested_number_of_pairs(method):
    chooser = Chooser(evidence_of())
    for m in (1, 36, 120):
        kept = chooser.choose(method, m, 1)
        assert len(set(kept.tolist())) == m and np.array_equal(kept, np.sort(kept))


def test_methods_agree_with_the_library():
    evidence = evidence_of()
    difficulty = evidence.score - evidence.score.min()
    wanted = d2_prune(
        evidence.both, difficulty, 0.3, n_neighbors=5, gamma_forward=10, gamma_reverse=10
    ).indices
    assert np.array_equal(Chooser(evidence).choose("d2:5:10", 36, 0), np.sort(wanted))
    top = np.sort(np.argsort(-evidence.score)[:36])
    assert np.array_equal(Chooser(evidence).choose("clip_score", 36, 0), top)


def test_deduplication_precedes_the_score():
    rng = np.random.default_rng(0)
    image = unit(rng.normal(size=(70, 12)))
    copies = unit(image[:30] + 1e-3 * rng.normal(size=(30, 12)))
    score = np.concatenate([np.linspace(1, 2, 70), np.linspace(3, 4, 30)])
    evidence = Evidence(np.concatenate([image, copies]), unit(rng.normal(size=(100, 6))), score)
    kept = Chooser(evidence).choose("semdedup+clip_score", 60, 0)
    # Every copy has a higher score than its original, so the copy is kept.
    assert not set(kept.tolist()) & set(range(30)) and set(range(70, 100)) <= set(kept.tolist())


@pytest.mark.parametrize(
    "method", ["luck", "d2:1", "d2:0:1", "d2:1.5:1", "d2:x:1", "d2:5:-1", "forward", "random:3"]
)
def test_unknown_method_is_refused(method, tmp_path, capsys):
    assert image_text.main(["--out", str(tmp_path), "--methods", method]) == 2
    assert f"--methods {method}: expected random, clip_score" in capsys.readouterr().err


def test_diversity_of_a_given_subset():
    image = np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]
    drawings = Drawings(
        np.zeros((4, 2, 2, 3), np.uint8), ["a"] * 4, np.array([7, 7, 8, 9]), ["x", "x", "y", "z"]
    )
    pool = NoisyPool(drawings, np.array([0, 0, 1, 2]), np.array([True, False, False, True]))
    evidence = Evidence(image, image, np.zeros(4))
    got = diversity(pool, evidence, np.array([0, 1]))
    assert got == {
        "wrong": 0.5, "copies": 0.5, "groups": 1, "categories": 1,
        "radius": pytest.approx(2**0.5), "vendi": pytest.approx(1.0),
    }  # fmt: skip
    got = diversity(pool, evidence, np.array([1, 2, 3]))
    assert (got["copies"], got["groups"], got["radius"]) == (0, 3, 0)
    assert got["vendi"] == pytest.approx(3.0)


def test_recalls_agree_with_sorting():
    rng = np.random.default_rng(0)
    cosine = rng.normal(size=(30, 30)).astype(np.float32) + np.eye(30, dtype=np.float32)
    for k in (1, 5, 10):
        hits = [row in np.argsort(-cosine[row])[:k] for row in range(30)]
        hits += [row in np.argsort(-cosine[:, row])[:k] for row in range(30)]
        assert recalls(cosine)[f"recall_{k}"] == pytest.approx(np.mean(hits))
    assert recalls(np.ones((30, 30), np.float32)) == {"recall_1": 0, "recall_5": 0, "recall_10": 0}


def test_training_learns_pairs_and_is_deterministic(clean, monkeypatch):
    monkeypatch.setattr(image_text_model, "_MIN_CLASS_SIZE", 2)
    pool = image_text_data.one_per_group(clean[0])
    pool = pool.take(np.arange(24))
    trainer = Trainer(pool, pool, Recipe(steps=60, batch_size=24, lr=3e-3, size=32, width=8))
    # Guessing has a recall of 1 / 24.
    assert trainer.evaluate(trainer.fit(np.arange(24), 0))["recall_1"] > 0.25
    trainer = Trainer(pool, pool, Recipe(steps=2, batch_size=24, lr=3e-3, size=32, width=8))
    models = [trainer.fit(np.arange(24), seed) for seed in (0, 0, 1)]
    same, other = (
        [torch.equal(a, b) for a, b in zip(models[0].parameters(), model.parameters(), strict=True)]
        for model in models[1:]
    )
    assert all(same) and not all(other)


def test_interrupted_run_resumes_and_other_settings_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(image_text_model, "_MIN_CLASS_SIZE", 2)
    monkeypatch.setattr(image_text_data, "bundled", functools.partial(bundled, 70))
    out = tmp_path / "out"
    arguments = ["--out", str(out), "--seeds", "1", "--steps", "2", "--methods", "random", "d2:1:1"]
    assert image_text.main(arguments) == 0
    table = pq.read_table(out / "results.parquet")
    assert table.schema == RESULTS and len(table) == 4
    kept = dict(zip(table["method"].to_pylist(), table["kept"].to_pylist(), strict=True))
    assert kept["random"] == kept["d2:1:1"] == kept["right captions"] == round(0.3 * kept["all pairs"])
    wrong = dict(zip(table["method"].to_pylist(), table["wrong"].to_pylist(), strict=True))
    assert wrong["right captions"] == 0 < wrong["all pairs"]
    assert (
        "| d2:1:1 |" in (out / "results.md").read_text() and "zero-shot" in (out / "results.svg").read_text()
    )
    cells = sorted((out / "cells").iterdir())
    lost, marked = cells[0], cells[1].stat().st_mtime_ns
    before = lost.read_text()
    lost.unlink()
    image_text.worker.cache_clear()
    assert image_text.main(arguments) == 0
    assert cells[1].stat().st_mtime_ns == marked
    assert {**json.loads(lost.read_text()), "seconds": 0} == {**json.loads(before), "seconds": 0}
    capsys.readouterr()
    assert image_text.main([*arguments, "--steps", "3"]) == 2
    assert "other settings" in capsys.readouterr().err
    image_text.worker.cache_clear()


def test_tables_and_plot_of_given_results():
    zero = dict.fromkeys(RESULTS.names, 0.0)
    rows = [
        {**zero, "method": method, "seed": seed, "recall_10": base + seed / 100, "wrong": 0.25, "vendi": 3.0}
        for method, base in (("a", 0.2), ("b", 0.1))
        for seed in (0, 1)
    ]
    means = summarise(pa.Table.from_pylist(rows, schema=RESULTS), ["a", "b", "absent"])
    lines = markdown(means).splitlines()
    assert "**20.5 ± 0.7**" in lines[2] and "10.5 ± 0.7 |" in lines[3] and "**10.5" not in lines[3]
    assert lines[-1] == "| b | 25.0 | 0.0 | 0 | 0 | 0.000 | 3.0 |"
    assert svg(means).count("<circle") == 4
    assert len(lines[0].split("|")) == len(TRAINED) + 4 and len(lines[-2].split("|")) == len(SUBSET) + 3
