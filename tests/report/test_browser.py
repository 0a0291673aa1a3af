"""The report in a real browser: readable at every width, no network requests, even with hostile captions."""

from dataclasses import replace

import numpy as np
import pytest

from d2prune.report.record import ReportParams
from d2prune.report.stage import write_report
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
    url = write_report(build_run(folder, pool), ReportParams(gallery=12))
    return f"file://{url}"


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
