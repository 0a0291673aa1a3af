import re
from xml.etree import ElementTree

import numpy as np
import pytest

from d2prune.report import plots, tradeoff
from d2prune.report.page_data import FlowStep, Histogram
from d2prune.report.suppression import summarise


def texts(markup):
    return [node.text for node in ElementTree.fromstring(str(markup)).iter() if node.text]


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-3.2, 17.9), (0, 12_800_000), (0.2, 0.21), (5, 5), (-1e-9, 1e-9)]
)
def test_ticks_are_few_and_inside_the_range(low, high):
    ticks = plots.nice_ticks(low, high)
    assert 1 <= len(ticks) <= 6
    assert all(low - 1e-12 <= tick <= high + 1e-12 for tick in ticks)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (0.25, "0.25"), (-2, "\u22122"), (1200, "1.2k"), (12_800_000, "12.8M"), (2e9, "2G")],
)
def test_short(value, expected):
    assert plots.short(value) == expected


def test_bar_heights_are_proportional_to_counts():
    data = Histogram(np.array([0.0, 1.0, 2.0]), np.array([10, 0]), np.array([10, 5]))
    root = ElementTree.fromstring(str(plots.histogram(data, "name", "score (no unit)", 0.5)))
    bars = {
        node.get("class"): [
            float(low) - float(high) for low, high in re.findall(r"M[\d.]+ ([\d.]+)V([\d.]+)H", node.get("d"))
        ]
        for node in root.iter("path")
    }
    assert bars["fill dropped"][0] == pytest.approx(bars["fill kept"][0], abs=0.2)
    assert bars["fill dropped"][1] == pytest.approx(bars["fill kept"][0] / 2, abs=0.2)
    assert "10 kept and 15 dropped" in root.get("aria-label")
    assert {"samples", "score (no unit)"} <= set(texts(plots.histogram(data, "name", "score (no unit)")))


def test_labels_are_escaped():
    label = '"><script>alert(1)</script>&'
    data = Histogram(np.array([0.0, 1.0]), np.array([1]), np.array([0]))
    line = tradeoff.Line([0.5, 1.0], [0.1, 0.2], ["a" + label, ""])
    for markup in (
        plots.histogram(data, label, label, 0.5),
        plots.flow([FlowStep(label, 3), FlowStep(label, 2, 1, label)]),
        tradeoff.draw([line], label, label, label, (0.3, 0.1)),
    ):
        assert "<script" not in markup
        assert ElementTree.fromstring(str(markup)).get("role") == "img"


def test_charts_without_data_do_not_fail():
    nothing = np.zeros(2, np.int64)
    assert "0 kept and 0 dropped" in plots.histogram(
        Histogram(np.array([0.0, 1, 2]), nothing, nothing), "n", "x"
    )
    plots.flow([FlowStep("Read", 0), FlowStep("Kept", 0)])
    plots.scatter(np.zeros((3, 2), np.uint16), np.zeros(3, bool), "kept")
    tradeoff.draw([tradeoff.Line([0.0], [0.0], ["1"])], "x", "y", "d", is_share=True)
    assert "0 of 0 samples" in plots.cosine_histogram(summarise(np.zeros(0)))


def test_every_point_is_drawn_inside_the_chart():
    points = np.random.default_rng(0).integers(0, 65_536, (50, 2)).astype(np.uint16)
    points[:2] = 0, 65_535
    shown = np.arange(50) % 2 == 0
    root = ElementTree.fromstring(str(plots.scatter(points, shown, "dropped")))
    drawn = {
        node.get("class"): re.findall(r"M([\d.]+) ([\d.]+)h0", node.get("d")) for node in root.iter("path")
    }
    assert {name: len(dots) for name, dots in drawn.items()} == {"dots other": 25, "dots dropped": 25}
    assert all(4 <= float(x) <= 396 and 4 <= float(y) <= 396 for dots in drawn.values() for x, y in dots)


def test_labels_of_the_trade_off_do_not_cover_each_other():
    line = tradeoff.Line([0.1, 0.101, 0.102, 0.5, 0.9], [0.4, 0.405, 0.41, 0.3, 0.1], list("abcde"))
    root = ElementTree.fromstring(str(tradeoff.draw([line], "x", "y", "d", (0.1, 0.4))))
    labels = [node for node in root.iter("text") if node.get("class") == "strong"]
    assert sorted("".join(node.text for node in labels if "you" not in node.text)) != []
    boxes = [(float(n.get("x")), float(n.get("y")), 7 * len(n.text)) for n in labels]
    for index, (x, y, width) in enumerate(boxes):
        assert 0 <= x <= x + width <= plots.WIDTH
        for other_x, other_y, other_width in boxes[:index]:
            assert abs(y - other_y) >= 13 or x + width <= other_x or other_x + other_width <= x
