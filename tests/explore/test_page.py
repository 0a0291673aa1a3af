"""The explorer in a real browser: hostile captions are inert, the keyboard suffices, every width fits."""

import threading

import pytest

from d2prune.explore.api import Explorer
from d2prune.explore.server import Server
from tests.browser import chromium, needs_axe, needs_chromium, serious_violations
from tests.explore.conftest import HOSTILE

pytestmark = needs_chromium

READY = "document.querySelectorAll('#cards .card').length > 0"
# Chromium's cumulative layout shift; above 0.1 it is noticeable.
SHIFT = """new Promise(done => {
  const total = list => list.getEntries().reduce((sum, e) => sum + (e.hadRecentInput ? 0 : e.value), 0);
  new PerformanceObserver(list => done(total(list))).observe({type: 'layout-shift', buffered: true});
  setTimeout(() => done(0), 300);
})"""


@pytest.fixture(scope="module")
def url(finished):
    with Server(Explorer(finished)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.url
        server.shutdown()


@pytest.fixture(scope="module")
def page():
    with chromium() as opened:
        yield opened


def test_hostile_captions_are_shown_as_text(page, url):
    page.open(f"{url}#/?sort=position")
    page.until(READY)
    assert page.run("document.querySelectorAll('#cards .card').length") == 48
    shown = page.run("document.querySelector('#cards .caption bdi').textContent")
    assert shown == page.run(
        "fetch('/api/samples?sort=position').then(r => r.json()).then(r => r.rows[0].caption)"
    )
    for position, caption in zip(range(120, 125), HOSTILE.values(), strict=True):
        page.open(f"{url}#/sample/{position}")
        page.until(f"document.getElementById('sample').dataset.position === '{position}'")
        assert page.run("document.querySelector('#sample .caption-box bdi').textContent") == caption
        assert page.run("document.title").startswith("Sample ")
        assert page.run("document.querySelectorAll('script').length") == 1
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
    assert not page.errors
    assert all(request.startswith(url) for request in page.requests)


def test_slider_shows_samples_that_another_fraction_adds(page, url):
    page.open(url)
    page.until(READY)
    page.run("document.getElementById('fraction').focus()")
    for _ in range(5):
        page.key("PageUp", 33)
    page.until("document.getElementById('preview-added').textContent !== '0'")
    page.until("document.querySelectorAll('#preview-rows .card').length > 0")
    assert page.run("document.querySelector('#preview-rows h3').textContent").startswith("Added")
    assert page.run("document.getElementById('preview-removed').textContent") == "0"


def test_search_and_open_a_sample_by_keyboard(page, url):
    page.open(url)
    page.until(READY)
    page.run("document.getElementById('q').focus()")
    for letter in "circle":
        page.key(letter, ord(letter.upper()), letter)
    page.key("Enter", 13, "\r")
    status = "document.getElementById('status').textContent"
    page.until(f"{status} !== '127 samples' && location.hash.includes('q=circle')")
    page.until(READY)
    for _ in range(40):
        page.key("Tab", 9)
        if page.run("document.activeElement.className") == "card":
            break
    page.key("Enter", 13, "\r")
    page.until("document.activeElement.tagName === 'H2' && location.hash.startsWith('#/sample/')")
    page.run("document.getElementById('back').focus()")
    page.key("Enter", 13, "\r")
    page.until("location.hash.includes('q=circle') && !document.getElementById('list').hidden")


def test_cluster_filter_works_by_keyboard_and_is_in_the_address(page, url):
    page.open(url)
    page.until("!document.getElementById('cluster').disabled")
    page.run("document.getElementById('cluster').focus()")
    page.key("ArrowDown", 40)
    # The status is blank until the first answer arrives.
    status = "document.getElementById('status').textContent"
    page.until(f"location.hash.includes('cluster=') && /^(?!127 )\\d+ samples$/.test({status})")
    chosen = page.run("document.getElementById('cluster').selectedOptions[0].textContent")
    assert f"({page.run(status).split()[0]}, " in chosen
    address = page.run("location.href")
    page.open("about:blank")
    page.open(address)
    page.until("!document.getElementById('cluster').disabled")
    assert page.run("document.getElementById('cluster').selectedOptions[0].textContent") == chosen
    page.until(READY)
    page.run("document.querySelector('#cards .card').click()")
    page.until("document.querySelector('#sample .facts a')")
    assert chosen.startswith(page.run("document.querySelector('#sample .facts a').textContent"))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_page_fits_its_width_and_does_not_shift(page, url, width, dark):
    for hash in ("#/", "#/sample/3"):
        page.open("about:blank", width, 800, dark)
        page.open(f"{url}{hash}", width, 800, dark)
        page.until("document.querySelector('#sample h2')" if "sample" in hash else READY)
        assert page.run("document.documentElement.scrollWidth <= innerWidth"), hash
        page.until("[...document.images].every(image => image.complete || image.loading === 'lazy')")
        assert page.run(SHIFT) < 0.1, hash


@needs_axe
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_no_serious_violation(page, url, dark):
    long = list(HOSTILE).index("long") + 120
    for hash in ("#/", "#/?sort=cluster", "#/sample/3", f"#/sample/{long}"):
        page.open("about:blank", dark=dark)
        page.open(f"{url}{hash}", dark=dark)
        page.until("document.querySelector('#sample h2')" if "sample" in hash else READY)
        assert serious_violations(page) == []
