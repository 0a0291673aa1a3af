"""The explorer in a real browser: hostile captions are inert, the keyboard suffices, every width fits."""

import threading

import pytest

from d2prune.explore.api import Explorer
from d2prune.explore.server import Server
from tests.browser import chromium, needs_chromium, serious_violations
from tests.explore.conftest import HOSTILE
from tests.explore.requests import ask

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
        page.until("document.title.startsWith('Sample ')")
        assert page.run("document.querySelector('#sample .caption-box bdi').textContent") == caption
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


STATUS = "document.getElementById('status').textContent"
POSITION = "document.getElementById('sample').dataset.position"


def leave_and_open(page, address):
    """Open an address as from a bookmark: without what the page still holds."""
    page.open("about:blank")
    page.open(address)


def count(page, among):
    return int(page.run(f"document.getElementById('count-{among}').textContent").replace(",", ""))


def press_arrow(page, side):
    page.key(f"Arrow{side}", {"Left": 37, "Up": 38, "Right": 39, "Down": 40}[side])


def test_a_bookmark_shows_search_filters_order_and_slider(page, url):
    leave_and_open(page, f"{url}#/?q=circle+red&reason=kept&sort=score&order=up&low=-1&fraction=0.5")
    page.until(f"/^\\d+ samples?$/.test({STATUS}) && {READY}")
    # The run is in the address, so that it stays when a newer one is complete.
    page.until("/run=[0-9a-f]{8}/.test(location.hash)")
    page.until("document.querySelectorAll('#preview-rows .card').length > 0")
    address, status = page.run("location.href"), page.run(STATUS)
    captions = "[...document.querySelectorAll('#cards .caption')].map(one => one.textContent)"
    shown = page.run(captions)
    assert shown and all("red" in text and "circle" in text for text in shown)
    leave_and_open(page, address)
    page.until(f"{STATUS} === {status!r} && {READY}")
    assert page.run(captions) == shown
    controls = {
        "q": "circle red",
        "reason": "kept",
        "sort": "score",
        "order": "up",
        "low": "-1",
        "fraction": "50",
    }
    for name, value in controls.items():
        assert page.run(f"document.getElementById('{name}').value") == value
    page.until("document.getElementById('preview-added').textContent !== '0'")
    assert page.run("document.getElementById('fraction-value').textContent") == "50.0%"
    assert not page.errors


def test_moving_the_slider_changes_the_address_and_its_list_opens(page, url):
    leave_and_open(page, url)
    page.until(READY)
    page.run("document.getElementById('fraction').focus()")
    for _ in range(5):
        page.key("PageUp", 33)
    page.until("/fraction=0.[3-9]/.test(location.hash)")
    # The link is that of the last position, not of one at which the slider rested between two keys.
    last = "'fraction=' + Math.round(document.getElementById('fraction').value * 10) / 1000"
    page.until(f"document.querySelector('#preview-rows p a')?.hash.endsWith({last})")
    added = page.run("document.getElementById('preview-added').textContent")
    page.run("document.querySelector('#preview-rows p a').click()")
    page.until(f"location.hash.includes('among=only-b') && {STATUS} === '{added} samples'")
    assert "Kept by a fraction of" in page.run("document.getElementById('subset').textContent")
    page.run("history.back()")
    page.until(f"!location.hash.includes('among=') && {STATUS} === '127 samples'")
    assert page.run("document.getElementById('subset').hidden")


def test_arrow_keys_walk_the_samples_of_a_list(page, url):
    leave_and_open(page, f"{url}#/?q=circle&sort=score")
    page.until(f"{READY} && {STATUS} !== '127 samples'")
    uids = page.run(
        "[...document.querySelectorAll('#cards .card')].map(card => card.hash.match(/sample.([^?]+)/)[1])"
    )
    page.run("document.querySelector('#cards .card').focus()")
    press_arrow(page, "Right")
    press_arrow(page, "Down")
    press_arrow(page, "Left")
    press_arrow(page, "Up")
    assert page.run("[...document.querySelectorAll('#cards .card')].indexOf(document.activeElement)") == 0
    page.key("Enter", 13, "\r")
    for place, uid in enumerate(uids[:3], 1):
        page.until(f"location.hash.startsWith('#/sample/{uid}')")
        page.until(f"document.getElementById('place')?.textContent === '{place} of {len(uids)}'")
        press_arrow(page, "Right")
    page.until(f"document.getElementById('place')?.textContent === '4 of {len(uids)}'")
    press_arrow(page, "Left")
    page.until(f"document.getElementById('place')?.textContent === '3 of {len(uids)}'")
    address, shown = page.run("location.href"), page.run(POSITION)
    leave_and_open(page, address)
    page.until(f"{POSITION} === '{shown}'")
    page.until(f"document.getElementById('place')?.textContent === '3 of {len(uids)}'")
    page.run("document.getElementById('back').click()")
    page.until("location.hash.includes('q=circle') && location.hash.includes('sort=score')")


def test_two_runs_are_compared_and_their_lists_open(page, several, several_server):
    first, gamma = (several[1][name] for name in ("first", "gamma"))
    leave_and_open(page, f"{several_server.url}#/compare?a={first}&b={gamma}")
    page.until(
        "document.getElementById('count-both') && document.getElementById('gap-b').textContent !== '…'"
    )
    expected = ask(several_server, "/api/compare", a=first, b=gamma)
    assert [count(page, among) for among in ("only-a", "both", "only-b")] == [
        expected["a"]["only"], expected["both"], expected["b"]["only"],
    ]  # fmt: skip
    differing = page.run("[...document.querySelectorAll('.differs th')].map(one => one.textContent)")
    assert {"Budget of the run", "Gamma, reverse pass"} <= set(differing) and "Input" not in differing
    galleries = (expected["a"]["only"] > 0) + (expected["b"]["only"] > 0)
    assert page.run("document.querySelectorAll('#comparison .cards').length") == galleries > 0
    page.run("document.querySelector('#count-only-b a').click()")
    page.until(f"{STATUS}.startsWith('{expected['b']['only']} sample')")
    page.run("history.back()")
    page.until("!document.getElementById('compare').hidden")
    page.run("document.getElementById('swap').click()")
    page.until(f"document.getElementById('count-only-a').textContent === '{expected['b']['only']}'")
    # The same run at another fraction, by keyboard.
    page.run("document.getElementById('b').value = document.getElementById('a').value")
    page.run("document.getElementById('b-fraction').focus()")
    for digit in "90":
        page.key(digit, ord(digit), digit)
    page.key("Enter", 13, "\r")
    page.until(
        "location.hash.includes('%400.9') && document.getElementById('count-only-a').textContent === '0'"
    )
    address = page.run("location.href")
    leave_and_open(page, address)
    page.until("document.getElementById('count-only-a')?.textContent === '0'")
    assert not page.errors


def test_the_switcher_opens_another_run(page, several, several_server):
    page.open(several_server.url)
    page.until(f"{READY} && document.querySelectorAll('#run option').length === 3")
    gamma = several[1]["gamma"][:8]
    page.run(f"document.getElementById('run').value = '{gamma}'")
    page.run("document.getElementById('run').dispatchEvent(new Event('change'))")
    kept = ask(several_server, "/api/run", run=gamma)["kept"]
    page.until(f"location.hash.includes('run={gamma}')")
    page.until(f"document.getElementById('title').textContent === '{kept} of 127 samples kept'")
    page.run("history.back()")
    page.until(f"!document.getElementById('title').textContent.startsWith('{kept} ')")


def test_a_filtered_list_is_exported(page, url):
    leave_and_open(page, f"{url}#/?q=circle&reason=kept")
    page.until(f"{READY} && !document.getElementById('export').hidden")
    listed = int(page.run(STATUS).split()[0])
    link = "document.getElementById('export-subset.npy')"
    size = page.run(f"fetch({link}.href).then(answer => answer.blob()).then(blob => blob.size)")
    assert page.run(f"{link}.hasAttribute('download')") and size == 128 + 16 * listed
    assert page.run("fetch(document.getElementById('export-samples.parquet').href).then(answer => answer.ok)")


def test_rejected_samples_are_shown_with_the_reason(page, url):
    page.open(f"{url}#/rejected")
    page.until("document.querySelectorAll('#rejected-rows tr').length === 1")
    text = page.run("document.getElementById('rejected-rows').textContent")
    assert "mute" in text and "caption-missing" in text and "no txt member" in text
    page.run("document.getElementById('rejected-q').focus()")
    for letter in "zz":
        page.key(letter, ord(letter.upper()), letter)
    page.key("Enter", 13, "\r")
    page.until(
        "location.hash.includes('q=zz') && document.querySelectorAll('#rejected-rows tr').length === 0"
    )


HOSTILE_ADDRESSES = [
    "#/sample/%3Cimg%20src%3Dx%20onerror%3Ddocument.title%3D1%3E",
    "#/sample/%E0%A4%A",
    "#/sample/..%2f..%2fapi%2frun",
    "#/?q=%3Cscript%3Edocument.title%3D1%3C%2Fscript%3E",
    "#/?b=%3Cb%3Ex%3C%2Fb%3E&among=only-b",
    "#/compare?a=%3Cscript%3E&b=javascript:1",
    "#/?run=%3Cscript%3E",
    "#/rejected?q=%22%3E%3Cimg%3E&reason=x",
    "#/constructor",
    "#/?start=-5&sort=nothing",
]


@pytest.mark.parametrize("hash", HOSTILE_ADDRESSES)
def test_a_hostile_address_is_shown_as_text_or_refused(page, url, hash):
    page.errors.clear()
    leave_and_open(page, f"{url}{hash}")
    settled = "!document.querySelector('[aria-busy]') && (document.querySelector('.error, #cards .card')"
    page.until(f"{settled} || /No samples/.test(document.querySelector('main').textContent))")
    assert page.run("document.querySelectorAll('script').length") == 1
    assert page.run("document.title").endswith("d2prune explore") or "onerror" not in page.run(
        "document.title"
    )
    assert not [error for error in page.errors if "400" not in error]
    page.errors.clear()


VIEWS = ("#/", "#/sample/3", "#/compare", "#/rejected", "#/map", "#/?mode=meaning")
SHOWN = {
    "#/": READY,
    "#/sample/3": "/ of /.test(document.getElementById('place').textContent)",
    "#/compare": "document.getElementById('gap-b') && document.getElementById('gap-b').textContent !== '…'",
    "#/rejected": "document.querySelectorAll('#rejected-rows tr').length",
    "#/map": "document.querySelectorAll('#legend button').length",
    "#/?mode=meaning": "!document.getElementById('mode-hint').hidden",
}


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_page_fits_its_width_and_does_not_shift(page, url, width, dark):
    for hash in VIEWS:
        page.open("about:blank", width, 800, dark)
        page.open(f"{url}{hash}", width, 800, dark)
        page.until(SHOWN[hash])
        assert page.run("document.documentElement.scrollWidth <= innerWidth"), hash
        # No table is cut where a phone's user would have to scroll sideways.
        assert page.run(
            "[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth)"
        ), hash
        page.until("[...document.images].every(image => image.complete || image.loading === 'lazy')")
        assert page.run(SHIFT) < 0.1, hash


def test_axe_finds_no_serious_violation(page, url):
    long = list(HOSTILE).index("long") + 120
    more = {
        "#/?sort=cluster": READY,
        "#/?b=@0.5&among=only-b&fraction=0.5": "document.querySelector('#preview-rows .card')",
        f"#/sample/{long}": "document.querySelector('#sample h2')",
    }
    for hash, shown in {**SHOWN, **more}.items():
        page.open("about:blank")
        page.open(f"{url}{hash}")
        page.until(shown)
        assert serious_violations(page) == [], hash


def test_shortcuts_answer_which_good_samples_were_lost(page, url):
    page.open(f"{url}#/?q=nothing-matches")
    page.until("document.getElementById('best-dropped').hash.includes('run=')")
    orders = {"best-dropped": ("clip_score", -1), "weakest-kept": ("clip_score", 1)}
    for name, (score, sign) in orders.items():
        page.run(f"document.getElementById('{name}').click()")
        state = "kept" if name == "weakest-kept" else "dropped"
        shown = f"[...document.querySelectorAll('#cards .status')].map(s => s.className.includes('{state}'))"
        page.until(f"{shown}.length && {shown}.every(Boolean)")
        cards = "[...document.querySelectorAll('#cards .card')]"
        values = page.run(f"{cards}.map(c => c.querySelector('dd').textContent.replace('\\u2212', '-'))")
        numbers = [sign * float(value.removeprefix("≤ ")) for value in values]
        assert numbers == sorted(numbers), score
    threshold = ask_threshold(page)
    page.run("document.getElementById('most-suppressed').click()")
    page.until("document.getElementById('sort').value === 'suppression'")
    page.until("document.querySelector('#cards .status').textContent.startsWith('dropped')")
    rows = page.run(
        "[...document.querySelectorAll('#cards .card')].map(c => [c.querySelector('.status').textContent,"
        " c.querySelectorAll('dd')[1].textContent.replace('\\u2212', '-')])"
    )
    # The digits shown of a score beside the threshold may round either way.
    told = {forward: text for text, forward in rows if abs(float(forward) - threshold) > 0.001}
    assert all(
        text == ("dropped: suppressed" if float(forward) >= threshold else "dropped: below budget")
        for forward, text in told.items()
    )
    assert "dropped: suppressed" in told.values()


def ask_threshold(page):
    return page.run("fetch('/api/run').then(r => r.json()).then(r => r.suppressed_from)")
