"""The report in a real browser: readable at every width, no network requests, even with hostile captions."""

from dataclasses import replace

import numpy as np
import pytest

from d2prune.parts.shard_changes import ShardChanges
from d2prune.report.collect import collect
from d2prune.report.increment_data import Fact, Increment, Movement
from d2prune.report.movements import MEANINGS
from d2prune.report.page import render
from d2prune.report.record import ReportParams
from d2prune.report.trend import Point
from tests.browser import chromium, needs_chromium, serious_violations
from tests.explore.conftest import HOSTILE
from tests.report.synthetic import build_run, items

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    pool = items(160)
    hostile = list(HOSTILE.values())
    pool = [
        replace(item, caption=hostile[at % len(hostile)]) if at % 2 else item for at, item in enumerate(pool)
    ]
    folder = tmp_path_factory.mktemp("report")
    data = collect(build_run(folder, pool), ReportParams(gallery=12))
    page = folder / "report.html"
    page.write_text(render(replace(data, **continued(data, hostile))))
    return f"file://{page}"


def continued(data, hostile):
    """What the page shows of a run that continues many others."""
    movements = tuple(Movement(name, text, 123_456, 7) for name, text in MEANINGS.values())
    settings = ("select.fraction: 0.3 -> 0.5", f"rank.difficulty: {hostile[0]} -> {hostile[-1]}")
    increment = Increment(
        "0123456789abcdef",
        shards=ShardChanges(1_000, 20, 3, 12_000, 10_000_000, 200_000),
        new=10_000_000,
        removed=200_000,
        common=120_000_000,
        settings=settings,
        facts=(
            Fact("Samples in the pool", "120,200,000", "130,000,000"),
            Fact("Gamma, forward pass", "8", "9"),
        ),
        movements=movements,
    )
    trend = tuple(
        Point(
            f"{number:016x}",
            "1 December 2026, 01:00 UTC",
            10**8,
            3 * 10**7 + number,
            "clip_score",
            0.3,
            None,
            0.95,
            settings,
        )
        for number in range(100)
    )
    # A few cards of each kind: the page has all others as well.
    moved = tuple(replace(g, cards=g.cards[:2]) for g in (data.galleries[0], data.unlike))
    return {"increment": increment, "moved": moved, "trend": trend}


@pytest.fixture(scope="module")
def page():
    with chromium() as opened:
        yield opened


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_page_fits_its_width_and_makes_no_requests(page, report, width, dark):
    page.requests.clear()
    page.open(report, width, 900, dark)
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    assert page.run("document.title").startswith("d2prune kept 48 of 160")
    assert page.run("document.scripts.length") == 0
    assert [url for url in page.requests if not url.startswith("data:")] == [report]
    assert not page.errors
    # Every image is loaded without scrolling, so printing includes it, and every chart has a size.
    page.until("[...document.images].every(image => image.complete)")
    assert page.run("[...document.images].every(image => image.naturalWidth > 0)")
    assert page.run("[...document.querySelectorAll('svg.chart')].every(chart => chart.clientHeight > 50)")
    paper = page.run("getComputedStyle(document.body).backgroundColor")
    assert (np.mean([int(part) for part in paper[4:-1].split(",")]) < 128) == dark


def test_chart_text_stays_inside_its_chart(page, report):
    page.open(report)
    outside = page.run(
        "[...document.querySelectorAll('svg.chart text')].filter(text => {"
        " const a = text.getBoundingClientRect(), b = text.closest('svg').getBoundingClientRect();"
        " return a.left < b.left - 1 || a.right > b.right + 1 || a.bottom > b.bottom + 1"
        "}).map(text => text.textContent)"
    )
    assert outside == []


def test_keyboard_reaches_every_link_and_region_in_order(page, report):
    page.open(report)
    wanted = page.run("[...document.querySelectorAll('a[href], [tabindex=\"0\"]')].length")
    seen = []
    for _ in range(wanted):
        page.key("Tab", 9)
        seen.append(page.run("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
    assert seen == sorted(set(seen))
    page.run("document.querySelector('nav a[href=\"#lost\"]').focus()")
    page.key("Enter", 13, "\r")
    page.until(
        "location.hash === '#lost' && document.querySelector('#lost').getBoundingClientRect().top < 400"
    )


def test_thumbnails_and_uids_are_whole(page, report):
    page.open(report, 360)
    assert page.run(
        "[...document.querySelectorAll('.frame img, .strip img')].every(i => i.clientHeight >= 112)"
    )
    assert page.run("[...document.querySelectorAll('.uid')].every(u => u.scrollWidth <= u.clientWidth)")
    names = "[...document.querySelectorAll('dt')].filter(t => t.textContent === 'clip_score')"
    assert page.run(names + ".every(t => t.clientHeight <= 24)")


def test_page_prints(page, report):
    page.open(report)
    assert len(page.call("Page.printToPDF")["data"]) > 50_000


def test_axe_finds_no_serious_violation(page, report):
    page.open(report)
    assert serious_violations(page) == []
