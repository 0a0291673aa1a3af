"""The points of the runs so far, and the curves through them."""

import re
from dataclasses import replace

import pytest

from d2prune.report.trend import Point, extend
from d2prune.report.trend_plot import draw_trend


def point(run_id, **measures):
    values = {"score": "clip_score", "mean_score": None, "copies": None, "recall": None}
    return Point(run_id, "", 10, 5, **values | measures)


def test_a_run_is_among_its_points_once():
    points = ()
    for run_id in ("a", "b", "a", "a", "c"):
        points = extend(points, point(run_id))
    assert [each.run_id for each in points] == ["b", "a", "c"]


def test_a_curve_has_the_means_of_one_score():
    points = [
        point("a", mean_score=0.3),
        point("b", mean_score=9.0, score="other"),
        point("c", mean_score=0.4),
    ]
    chart = draw_trend(points, "clip_score")["score"]
    assert chart.count("<circle") == 2 and "9" not in re.findall(r">([^<>]+)</text>", chart)
    assert "score" not in draw_trend(points, "third")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("recall", (1.0, 1.0)), ("recall", (0.9512, 0.9513)), ("recall", (0.97, None)),
        ("copies", (0.0, 0.0)), ("copies", (1e-7, 1e-7)), ("copies", (1.0, 1.0)),
        ("mean_score", (0.0, 0.0)), ("mean_score", (-0.3, -0.3)), ("mean_score", (1e-9, 1e-9)),
        ("mean_score", (12345678.0, 12345679.0)), ("kept", (0, 0)), ("kept", (5, 5)),
        ("kept", (10**9, 10**9)), ("recall", (0.0, 0.0)),
    ],
)  # fmt: skip
def test_a_flat_curve_has_different_numbers_on_its_axis(name, values):
    points = [replace(point("a"), **{name: value}) for value in values]
    if name == "kept":
        points = [replace(each, samples=each.kept) for each in points]
    chart = draw_trend(points, "clip_score")[{"mean_score": "score", "kept": "samples"}.get(name, name)]
    labels = re.findall(r'text-anchor="end">([^<]+)<', chart)
    assert 2 <= len(labels) == len(set(labels)) and max(map(len, labels)) <= 9
    if name == "recall":
        assert max(map(float, labels)) <= 1
    if values == (0.0, 0.0):
        assert not any("e" in label for label in labels)
