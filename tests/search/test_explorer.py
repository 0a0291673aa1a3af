"""Search by meaning in the explorer: over HTTP, and in a browser."""

import http.client
import io
import json
import shutil
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import quote

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from d2prune import extras
from d2prune.cli.main import main
from d2prune.explore import meaning
from d2prune.explore.api import Explorer
from d2prune.explore.meaning import Meaning
from d2prune.explore.query import Query
from d2prune.explore.server import Server
from d2prune.explore.texts import Texts
from d2prune.explore.workspace import OpenRun
from d2prune.index.build import build_index
from d2prune.search.query_model import QueryModel
from d2prune.search.searcher import Searcher
from tests.browser import chromium, needs_chromium
from tests.explore.requests import ask, get
from tests.pools import draw

FLAG = {"mode": "meaning", "q": "a red flag"}


@contextmanager
def serving(run, model=None):
    with Server(Explorer(run, meaning=Meaning(model=model))) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(scope="module")
def server(indexed, model_name):
    with serving(indexed, model_name) as running:
        yield running


@pytest.fixture(scope="module")
def expected(indexed, model_name):
    searcher = Searcher(indexed, model=model_name)
    return {"text": searcher.by_text(FLAG["q"], meaning.NEAREST), "like": searcher.like(3, meaning.NEAREST)}


def positions(rows):
    return [row["position"] for row in rows]


@pytest.mark.parametrize(("query", "name"), [(FLAG, "text"), ({"like": 3}, "like")])
def test_a_list_by_meaning_is_that_of_the_searcher_in_pages(server, expected, query, name):
    hits = expected[name]
    rows = []
    for start in range(0, len(hits), 50):
        found = ask(server, "/api/samples", start=start, limit=50, sort="score", order="up", **query)
        assert found["total"] == found["nearest"] == len(hits)
        rows += found["rows"]
    assert positions(rows) == hits.positions.tolist()
    assert [row["similarity"] for row in rows] == hits.similarities.tolist()
    listed = {row["position"]: row for row in ask(server, "/api/samples", limit=200)["rows"]}
    assert all({**listed[row["position"]], "similarity": row["similarity"]} == row for row in rows)
    around = ask(server, "/api/around", at=int(hits.positions[7]), **query)
    assert around["place"] == 7 and around["next"]["position"] == hits.positions[8]
    if name == "like":
        assert found["like"] == {"position": 3, "uid": listed[3]["uid"]} and 3 not in hits.positions


@pytest.mark.parametrize("filters", [{"reason": "kept"}, {"low": 0.0}, {"b": "@0.6", "among": "only-b"}])
def test_filters_thin_the_list_and_keep_its_order(server, expected, filters):
    members = set(positions(ask(server, "/api/samples", limit=200, **filters)["rows"]))
    found = ask(server, "/api/samples", limit=200, **FLAG, **filters)
    assert 0 < found["total"] < found["nearest"]
    assert positions(found["rows"]) == [p for p in expected["text"].positions.tolist() if p in members]


def test_words_filter_the_samples_like_one(server, expected):
    found = ask(server, "/api/samples", limit=200, like=3, q="CIRCLE red")["rows"]
    members = positions(ask(server, "/api/samples", limit=200, q="circle red")["rows"])
    assert positions(found) == [p for p in expected["like"].positions.tolist() if p in members] != []


@pytest.mark.parametrize("query", [FLAG, {"like": 3, "reason": "kept"}])
def test_a_list_by_meaning_is_exported_with_similarities(server, query):
    rows = ask(server, "/api/samples", limit=200, **query)["rows"]
    path = "&".join(f"{name}={quote(str(value))}" for name, value in query.items())
    table = pq.read_table(io.BytesIO(get(server, f"/export/samples.parquet?{path}")[1]))
    wanted = {(row["uid"], row["similarity"]) for row in rows}
    assert set(zip(table["uid"].to_pylist(), table["query_similarity"].to_pylist(), strict=True)) == wanted
    assert len(np.load(io.BytesIO(get(server, f"/export/subset.npy?{path}")[1]))) == len(rows)


@pytest.mark.parametrize(
    "text", ["<script>", "%00", "%ff%fe%ed%a0%80", "\"'; --", "<|endoftext|>", "%F0%9F%98%80" * 400, "\u202e"]
)
def test_any_text_is_searched_for(server, text):
    answer, body = get(server, f"/api/samples?limit=1&mode=meaning&q={quote(text, safe='%')}")
    assert answer.status == 200 and b'"nearest":127' in body.replace(b" ", b""), body


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("mode=words", "mode: found 'words'; expected one of meaning"),
        ("mode=%3Cb%3E", "mode: found '<b>'"),
        ("like=-1", "like: found '-1'; expected a whole number"),
        ("like=1.0", "like: found '1.0'"),
        ("like=127", "like: found 127; expected a position from 0 to 126"),
        ("like=" + "9" * 5000, "expected a position from 0 to 126"),
        ("like=1&mode=meaning&q=flag", "like: found a description in q, too"),
    ],
)
def test_wrong_searches_are_refused_in_one_line(server, query, message):
    for path in ("/api/samples?", "/api/around?at=1&", "/export/subset.npy?", "/export/samples.parquet?"):
        answer, body = get(server, path + query)
        assert answer.status == 400 and message in body.decode(), path


def test_a_long_text_is_cut_and_a_blank_one_lists_all(server):
    assert ask(server, "/api/samples", mode="meaning", q="flag " * 3_000)["nearest"] == 127
    for blank in ("", "  ", "\u3000"):
        assert "nearest" not in ask(server, "/api/samples", mode="meaning", q=blank)


def test_the_model_loads_once_at_the_first_text_and_blocks_nothing_else(indexed, model_name, monkeypatch):
    """Ten texts at once while it loads; lists and samples like one are answered meanwhile."""
    release, loads, load = threading.Event(), [], QueryModel._load

    def load_slowly(self):
        if self._encoder is None:
            loads.append(1)
            release.wait(20)
        return load(self)

    monkeypatch.setattr(QueryModel, "_load", load_slowly)
    with serving(indexed, model_name) as running:
        about = ask(running, "/api/meaning")
        assert about == {"index": None, "text": None, "loaded": False}
        answers = []
        threads = [
            threading.Thread(
                target=lambda n=n: answers.append(ask(running, "/api/samples", mode="meaning", q=f"{n}"))
            )
            for n in range(10)
        ]
        for thread in threads:
            thread.start()
        while not loads:
            time.sleep(0.01)
        assert ask(running, "/api/samples", like=5)["nearest"] == 126
        assert ask(running, "/api/samples")["total"] == 127 and not ask(running, "/api/meaning")["loaded"]
        assert not answers
        release.set()
        for thread in threads:
            thread.join()
        assert len(answers) == 10 and len(loads) == 1 and ask(running, "/api/meaning")["loaded"]


def test_runs_of_one_graph_share_an_index_and_its_answers(indexed, monkeypatch):
    one, other = (OpenRun(name, replace(indexed), Texts(indexed.parts)) for name in ("a", "b"))
    searches = Meaning()
    found = searches.nearest(one, Query(like=3))
    monkeypatch.setattr(Meaning, "_make", lambda self, run: pytest.fail("a second index"))
    assert searches.nearest(other, Query(like=3)) is found
    assert len(searches.nearest(other, Query(like=4))) == 126


def test_without_an_index_the_command_is_named(finished):
    with serving(finished) as running:
        about = ask(running, "/api/meaning")
        assert f"`d2prune index {finished.work_dir}`" in about["index"] and about["text"] is None
        answer, body = get(running, "/api/samples?like=3")
        assert answer.status == 400 and b"d2prune index" in body and body.count(b"\n") == 0


def test_without_a_model_samples_like_one_are_found(tables):
    with serving(tables) as running:
        about = ask(running, "/api/meaning")
        assert about["index"] is None and "imported from tables" in about["text"]
        assert "start `d2prune explore` with --model" in about["text"] and "--like" not in about["text"]
        answer, body = get(running, "/api/samples?mode=meaning&q=flag")
        assert answer.status == 400 and json.loads(body) == {"error": about["text"]}
        assert post(running, b"x") == (400, {"error": about["text"]})
        assert ask(running, "/api/samples", like=3)["total"] == len(tables) - 1


@pytest.mark.parametrize(
    ("module", "field", "extra"), [("faiss", "index", "search"), ("open_clip", "text", "clip")]
)
def test_a_missing_extra_is_named(indexed, model_name, monkeypatch, module, field, extra):
    known = extras.is_installed
    monkeypatch.setattr(extras, "is_installed", lambda name: name != module and known(name))
    with serving(indexed, model_name) as running:
        assert f"pip install 'd2prune[{extra}]'" in ask(running, "/api/meaning")[field]
        answer, body = get(running, "/api/samples?mode=meaning&q=flag")
        assert answer.status == 400 and f"d2prune[{extra}]".encode() in body


def test_the_command_names_the_index_and_the_model(indexed, tiny_model, tmp_path, monkeypatch, capsys):
    started = []
    monkeypatch.setattr("d2prune.explore.server.serve", lambda explorer, *_: started.append(explorer))
    folder = shutil.copytree(build_index(indexed), tmp_path / "view")
    assert main(["explore", indexed.work_dir, "--index", str(folder), "--model", str(tiny_model)]) == 0
    assert started[0].search(FLAG)["nearest"] == 127
    assert main(["explore", indexed.work_dir, "--pretrained", "openai"]) == 2
    assert capsys.readouterr().err.endswith("--pretrained openai: expected --model, too\n")


STATUS = "document.getElementById('status').textContent"
LISTED = "[...document.querySelectorAll('#cards .card')].map(card => Number(card.hash.match(/at=(\\d+)/)[1]))"
HINT = "document.getElementById('mode-hint')"


@needs_chromium
def test_the_search_box_searches_by_meaning(server, expected, tables):
    """By keyboard: mode and text; then a permalink, a sample, more like it, export; then a pool of tables."""
    with chromium() as page:
        page.open(server.url)
        page.until("document.querySelectorAll('#cards .card').length === 48")
        page.run("document.querySelector('[name=mode]:checked').focus()")
        page.key("ArrowRight", 39)
        page.until("location.hash.includes('mode=meaning')")
        assert page.run(STATUS) == "127 samples"
        page.run("document.getElementById('q').focus()")
        for letter in FLAG["q"]:
            page.key(letter, ord(letter.upper()), letter)
        page.key("Enter", 13, "\r")
        page.until(f"{STATUS} === 'The 127 most similar samples, most similar first'")
        assert page.run("document.querySelector('#cards .scores dt').textContent") == "similarity"
        assert page.run("document.getElementById('sort').value") == "similarity"
        assert page.run("document.getElementById('sort').disabled")
        shown = page.run(LISTED)
        assert shown == expected["text"].positions[:48].tolist()
        address = page.run("location.href")
        page.open("about:blank")
        page.open(address)
        page.until(f"{STATUS}.startsWith('The 127 most similar samples')")
        assert page.run("document.querySelector('[name=mode]:checked').value") == "meaning"
        assert page.run("document.getElementById('q').value") == FLAG["q"]
        assert page.run(LISTED) == shown
        page.run("document.querySelector('#cards .card').click()")
        page.until("document.getElementById('place')?.textContent === '1 of 127'")
        page.run("document.getElementById('alike-link').focus()")
        page.key("Enter", 13, "\r")
        page.until(f"location.hash.includes('like={shown[0]}') && {STATUS}.startsWith('The 126 most')")
        assert page.run("document.getElementById('alike').textContent").startswith("Samples most like ")
        assert page.run("document.querySelector('[name=mode]:checked').value") == "words"
        link = "document.getElementById('export-subset.npy')"
        size = page.run(f"fetch({link}.href).then(answer => answer.blob()).then(blob => blob.size)")
        assert size == 128 + 16 * 126
        page.run("document.getElementById('reason').value = 'kept'")
        page.run("document.getElementById('query').requestSubmit()")
        page.until(f"/^Filters leave \\d+ of the 126 most similar samples$/.test({STATUS})")
        page.run("document.querySelector('#alike a:last-child').click()")
        page.until("!location.hash.includes('like=') && document.getElementById('alike').hidden")
        assert page.run("!document.getElementById('sort').disabled") and not page.errors
        with serving(tables) as other:
            page.open(f"{other.url}#/?mode=meaning")
            page.until(f"!{HINT}.hidden && {HINT}.textContent.includes('More like this')")
            page.open("about:blank")
            page.open(f"{other.url}#/?mode=meaning&q=%3Cb%3Eflag")
            page.until(f"{STATUS}.includes('imported from tables') && !{HINT}.hidden")
            assert page.run("document.querySelectorAll('#cards .card').length") == 0
            assert page.run("document.documentElement.scrollWidth <= innerWidth")


def post(server, data, kind="application/octet-stream", path="/api/image", **headers):
    address = server.server_address
    connection = http.client.HTTPConnection(*address, timeout=20)
    headers = {"Content-Type": kind, **headers}
    connection.request("POST", path, data, {name: value for name, value in headers.items() if value})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, json.loads(body) if body.startswith(b"{") else body.decode()


@pytest.fixture(scope="module")
def picture():
    stream = io.BytesIO()
    Image.open(io.BytesIO(draw("circle", "red", 5))).save(stream, "PNG")
    return stream.getvalue()


def test_a_posted_image_is_searched_for_in_pages_and_exports(server, indexed, model_name, picture):
    status, answer = post(server, picture)
    assert status == 200 and post(server, picture) == (status, answer)
    hits = Searcher(indexed, model=model_name).by_image(picture, meaning.NEAREST)
    found = ask(server, "/api/samples", image=answer["image"], start=10, limit=30)
    assert positions(found["rows"]) == hits.positions[10:40].tolist() and found["image"] == answer["image"]
    assert ask(server, "/api/around", image=answer["image"], at=int(hits.positions[7]))["place"] == 7
    kept = ask(server, "/api/samples", image=answer["image"], reason="kept", q="circle", limit=200)["rows"]
    assert kept and all(row["kept"] and "circle" in row["caption"] for row in kept)
    body = get(server, f"/export/subset.npy?image={answer['image']}")[1]
    assert len(np.load(io.BytesIO(body))) == len(hits)


BOMB = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\x01\x86\xa0\0\x01\x86\xa0\x08\x02\0\0\0\x7a\x7a\xf1\xee"


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (b"", {}, "image: found"),
        (b"no image", {}, "expected an image"),
        (BOMB, {}, "expected an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", {}, "expected an image"),
        (b"x" * 9, {"kind": "image/png"}, "content type"),
        (b"x" * 9, {"kind": "text/plain"}, "content type"),
        (b"x" * 9, {"kind": None}, "content type"),
        (b"x" * 9, {"path": "/api/image?run=none"}, "run"),
        (b"", {"Content-Length": str(20 * 2**20 + 1)}, "20,971,521 bytes; expected at most 20,971,520"),
        (b"", {"Content-Length": "9" * 30}, "Content-Length"),
        (b"", {"Content-Length": "-1"}, "Content-Length"),
        (b"", {"Transfer-Encoding": "chunked"}, "Content-Length"),
    ],
)  # fmt: skip
def test_what_is_no_image_is_refused_in_one_line(server, data, options, message):
    status, answer = post(server, data, **options)
    assert status == 400 and message in answer["error"] and "\n" not in answer["error"]
    assert ask(server, "/api/samples", limit=1)["total"] == 127


@pytest.mark.parametrize("image", ["0" * 32, "x", "../../etc/passwd", "0" * 5_000])
def test_an_image_that_the_server_does_not_hold_is_one_line(server, image):
    answer, body = get(server, f"/api/samples?image={quote(image)}")
    assert answer.status == 400 and b'"error":"image: found' in body.replace(b": ", b":", 1)


@needs_chromium
def test_an_image_is_chosen_or_dropped_on_the_page(server, picture, tmp_path):
    (tmp_path / "red <b>.png").write_bytes(picture)
    with chromium() as page:
        page.open(server.url)
        page.until("document.querySelectorAll('#cards .card').length")
        page.call("DOM.enable")
        root = page.call("DOM.getDocument")["root"]["nodeId"]
        chooser = page.call("DOM.querySelector", nodeId=root, selector="#image-file")["nodeId"]
        page.call("DOM.setFileInputFiles", nodeId=chooser, files=[str(tmp_path / "red <b>.png")])
        page.until("document.getElementById('alike').textContent.startsWith('Samples most like red <b>.png')")
        first = page.run("document.querySelector('#cards .card').href")
        named = page.run("new URLSearchParams(location.hash.slice(3)).get('image')")
        assert len(named) == 32 and "similarity" in page.run("document.querySelector('.scores').textContent")
        # The address is a permalink as long as the server runs; what is dropped replaces it.
        page.run("location.hash = '#/'")
        page.until("document.getElementById('alike').hidden")
        page.run(
            "fetch('/image/small/3').then(r => r.blob()).then(b => { const t = new DataTransfer();"
            "t.items.add(new File([b], 'dropped.webp')); document.dispatchEvent("
            "new DragEvent('drop', {dataTransfer: t, cancelable: true, bubbles: true})) })"
        )
        page.until("document.getElementById('alike').textContent.includes('dropped.webp')")
        assert page.run("document.querySelector('#cards .card').href") != first
        page.run(
            "window.paste = (name, target, text) => { const t = new DataTransfer();"
            "t.items.add(new File(['x'], name)); if (text) t.setData('text/plain', text);"
            "target.dispatchEvent(new ClipboardEvent('paste', {clipboardData: t, bubbles: true}));"
            "return document.getElementById('status').textContent.includes(name) }"
        )
        # Office copies text together with an image of it.
        assert not page.run("paste('a.png', document.body, 'words')")
        assert not page.run("paste('b.png', document.getElementById('q'), '')")
        page.run(
            "const t = new DataTransfer(); Object.defineProperty(t, 'types', {value: ['Files']});"
            "document.dispatchEvent(new DragEvent('drop', {dataTransfer: t, cancelable: true}))"
        )
        assert not page.errors
        assert page.run("paste('c.png', document, '')")
