"""The map of a pool: its layout, what an outline contains, and the page in a real browser."""

import io
import itertools
import sys
import threading
from fractions import Fraction

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.errors import UserError
from d2prune.explore import pool_map
from d2prune.explore.api import Explorer
from d2prune.explore.parameters import MAX_COORDINATE, parse_outline
from d2prune.explore.pool_map import PoolMap, contains
from d2prune.explore.server import Server
from d2prune.knn import graph_layout, layout
from d2prune.output import subset
from d2prune.parts import map_file
from d2prune.parts.map_file import MapLayout, read_layout, write_layout
from tests.browser import chromium, needs_chromium, serious_violations
from tests.explore.requests import ask, get

WHOLE = f"0,0,{MAX_COORDINATE},0,{MAX_COORDINATE},{MAX_COORDINATE},0,{MAX_COORDINATE}"


@pytest.fixture(scope="module")
def server(finished):
    with Server(Explorer(finished)) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(scope="module")
def points(server):
    """The columns that the page gets."""
    body = get(server, "/api/map/points")[1]
    about = ask(server, "/api/map")
    n = about["points"]
    kinds = {"position": "<f8", "score": "<f4", "x": "<u2", "y": "<u2", "cluster": "<i2"}
    found, start = {}, 0
    for name, kind in {**kinds, "reason": "u1", "kept": "u1"}.items():
        found[name] = np.frombuffer(body, kind, n, start)
        start += found[name].nbytes
    assert start == len(body) and about["state"] == "ready"
    return found | {"reasons": about["reasons"]}


def test_points_are_the_samples_of_the_run(server, points):
    rows = ask(server, "/api/samples?sort=position&order=up&limit=200")["rows"]
    assert points["position"].tolist() == [row["position"] for row in rows]
    np.testing.assert_allclose(points["score"], [row["score"] for row in rows], atol=1e-6)
    assert points["kept"].tolist() == [row["kept"] for row in rows]
    assert [points["reasons"][code] for code in points["reason"]] == [row["reason"] for row in rows]
    clusters = {row["number"]: row["samples"] for row in ask(server, "/api/clusters")["clusters"]}
    assert dict(zip(*np.unique(points["cluster"], return_counts=True), strict=True)) == clusters


def naive_inside(outline, x, y):
    """Even-odd rule in exact arithmetic, one point."""
    found = False
    for (ax, ay), (bx, by) in zip(outline, outline[1:] + outline[:1], strict=True):
        if (ay > y) != (by > y):
            found ^= x < ax + Fraction((y - ay) * (bx - ax), by - ay)
    return found


CORNERS = st.tuples(*[st.integers(0, 12) | st.integers(0, MAX_COORDINATE)] * 2)


@settings(max_examples=60, deadline=None)
@given(st.lists(CORNERS, min_size=3, max_size=8), st.lists(CORNERS, min_size=1, max_size=20))
def test_an_outline_contains_what_exact_arithmetic_says(outline, places):
    found = contains(tuple(outline), np.array(places, np.uint16))
    assert found.tolist() == [naive_inside(outline, x, y) for x, y in places]


@pytest.mark.parametrize(
    "text",
    ["1,2", "1,2,3,4", "1,2,3,4,5", "1,2,3,4,5,x", "1,2,3,4,5,-6", "1,2,3,4,5,65536", "1,2,3,4,5,²", ",,,,,",
     "1,2,3,4,5,6,", " 1,2,3,4,5,6", "1e3,2,3,4,5,6", "<script>", "1," * 2_000 + "1", "٣,2,3,4,5,6"],
)  # fmt: skip
def test_what_is_no_outline_is_refused_in_one_line(text):
    with pytest.raises(UserError, match=r"^outline: found .{0,80}; expected X,Y") as raised:
        parse_outline({"outline": text})
    assert "\n" not in str(raised.value)


def test_an_outline_limits_a_list_its_export_and_the_way_through_it(server, points):
    x, y = points["x"].astype(int), points["y"].astype(int)
    middle = int(np.median(x))
    outline = f"0,0,{middle},0,{middle},65535,0,65535"
    expected = set(points["position"][(x < middle) & (y < 65535)].astype(int).tolist())
    found = ask(server, "/api/samples", outline=outline, limit=200)
    assert {row["position"] for row in found["rows"]} == expected and found["total"] == len(expected) > 10
    assert ask(server, "/api/around", outline=outline, at=found["rows"][3]["position"])["place"] == 3
    kept = ask(server, "/api/samples", outline=outline, reason="kept", limit=200)["rows"]
    assert {row["position"] for row in kept} == {row["position"] for row in found["rows"] if row["kept"]}
    both = ask(server, "/api/samples", outline=outline, b="@0.5", among="only-b", limit=200)
    one = ask(server, "/api/samples", b="@0.5", among="only-b", limit=200)
    assert {r["position"] for r in both["rows"]} == {r["position"] for r in one["rows"]} & expected
    body = get(server, f"/export/samples.parquet?outline={outline}")[1]
    exported = pq.read_table(io.BytesIO(body))["uid"].to_pylist()
    assert sorted(exported) == sorted(row["uid"] for row in found["rows"])


def test_a_layout_is_stored_beside_the_graph_and_read_again(finished, server, points, monkeypatch):
    stored = read_layout(finished.work_dir, finished.graph.fingerprint, len(finished))
    np.testing.assert_array_equal(stored.xy_S2, np.stack([points["x"], points["y"]], axis=1))
    monkeypatch.setattr(layout, "layout", lambda *_: pytest.fail("computed again"))
    again = PoolMap(finished).layout()
    np.testing.assert_array_equal(again.xy_S2, stored.xy_S2)


def test_without_a_place_to_store_it_a_layout_is_kept_in_memory(finished, monkeypatch):
    monkeypatch.setattr(pool_map, "read_layout", lambda *_: None)

    def refuse(url, data):
        raise PermissionError(13, "Permission denied", url)

    monkeypatch.setattr(map_file.store, "write_bytes", refuse)
    found = PoolMap(finished, max_points=50)
    assert len(found.layout().positions_S) == 50
    assert found.progress() == {"state": "ready", "points": 50, "samples": 127}


def test_a_missing_extra_is_one_line(finished, monkeypatch):
    monkeypatch.setattr(pool_map, "read_layout", lambda *_: None)
    monkeypatch.setattr(graph_layout, "EXACT_BELOW", 100)
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    line = "the map: needs openTSNE, which is not installed; pip install 'd2prune[map]'"
    with Server(Explorer(finished)) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        answer, body = get(running, f"/api/samples?outline={WHOLE}")
        assert answer.status == 400 and line in body.decode()
        found = ask(running, "/api/map")
        assert found["state"] == "failed" and found["error"] == line
        # Installed by now.
        stored = MapLayout(np.arange(2), np.zeros((2, 2), "u2"))
        monkeypatch.setattr(pool_map, "read_layout", lambda *_: stored)
        assert ask(running, "/api/map")["state"] == "failed"
        monkeypatch.setattr(pool_map, "_RETRY_S", 0.0)
        assert ask(running, f"/api/samples?outline={WHOLE}")["total"] == 2
        running.shutdown()


@pytest.mark.parametrize("fault", ["none", "flip", "cut", "version", "order", "range"])
def test_a_damaged_or_other_layout_is_not_used(tmp_path, fault, monkeypatch):
    rng = np.random.default_rng(0)
    rows = np.arange(1_000)
    if fault == "order":
        rows[[3, 4]] = rows[[4, 3]]
    if fault == "version":
        monkeypatch.setattr(map_file, "_SCHEMA", map_file._SCHEMA.with_metadata({b"layout": b"0"}))
    made = MapLayout(rows, rng.integers(0, 65_536, (1_000, 2)).astype(np.uint16))
    assert write_layout(str(tmp_path), "g", made)
    monkeypatch.undo()
    file = tmp_path / "graph" / "g" / map_file.FILE
    data = bytearray(file.read_bytes())
    if fault == "flip":
        data[len(data) // 2] ^= 1
    file.write_bytes(data[:-9] if fault == "cut" else data)
    found = read_layout(str(tmp_path), "g", 999 if fault == "range" else 1_000)
    assert (found is not None) == (fault == "none")
    if found:
        np.testing.assert_array_equal(found.xy_S2, made.xy_S2)


BODY = "!document.getElementById('map-body').hidden"
PICKED = "document.getElementById('picked-count').textContent"
IN_VIEW = "document.getElementById('in-view').textContent"
STATUS = "document.getElementById('status').textContent"


@pytest.fixture(scope="module")
def page():
    with chromium() as opened:
        yield opened


def mouse(page, kind, x, y, pressed=False, shift=False):
    page.call(
        "Input.dispatchMouseEvent", type=kind, x=x, y=y, modifiers=8 if shift else 0, clickCount=1,
        button="left" if pressed or kind != "mouseMoved" else "none", buttons=int(pressed),
    )  # fmt: skip


def box(page):
    place = "document.getElementById('points').getBoundingClientRect()"
    return page.run(f"(r => [r.left, r.top, r.width, r.height])({place})")


def pixel(page, points, i):
    """Where a point is on the screen while the whole map is shown."""
    left, top, width, height = box(page)
    scale = 0.94 * min(width, height) / 65_535
    x, y = int(points["x"][i]) - 65_535 / 2, int(points["y"][i]) - 65_535 / 2
    return left + width / 2 + x * scale, top + height / 2 - y * scale


def open_map(page, server, hash="#/map", **options):
    page.open("about:blank")
    page.open(server.url + hash, **options)
    page.until(BODY)
    page.run("document.getElementById('points').scrollIntoView()")


@needs_chromium
def test_a_lasso_is_listed_and_exported_with_exactly_its_uids(page, server, points):
    open_map(page, server)
    left, top, width, height = box(page)
    # A triangle over half of the map.
    way = [(0.1, 0.05), (0.1, 0.95), (0.7, 0.95), (0.1, 0.05)]
    spots = [(left + width * x, top + height * y) for x, y in way]
    mouse(page, "mousePressed", *spots[0], True, shift=True)
    for (ax, ay), (bx, by) in itertools.pairwise(spots):
        for step in range(1, 9):
            mouse(page, "mouseMoved", ax + (bx - ax) * step / 8, ay + (by - ay) * step / 8, True, shift=True)
    mouse(page, "mouseReleased", *spots[-1], shift=True)
    page.until(f"{PICKED} && !document.getElementById('picked').hidden")
    total = int(page.run(PICKED).split()[0])
    link = "document.getElementById('picked-list').hash.split('?')[1]"
    outline = page.run(f"new URLSearchParams({link}).get('outline')")
    corners = parse_outline({"outline": outline})
    places = np.stack([points["x"], points["y"]], axis=1)
    inside = points["position"][contains(corners, places)].astype(int)
    assert 0 < total == len(inside) < 127
    data = page.run(
        "fetch(document.getElementById('picked-subset.npy').href).then(a => a.arrayBuffer())"
        ".then(b => [...new Uint8Array(b)])"
    )
    rows = ask(server, "/api/samples?sort=position&order=up&limit=200")["rows"]
    expected = subset.encode([rows[i]["uid"] for i in inside])
    exported = np.load(io.BytesIO(bytes(data)))
    assert sorted(exported.tolist()) == sorted(expected.tolist())
    assert "outline=" in page.run("location.hash")
    page.run("document.getElementById('picked-list').click()")
    page.until(f"{STATUS} === '{total} samples'")
    assert "outline on the map" in page.run("document.getElementById('subset').textContent")
    page.run("document.querySelector('#cards .card').click()")
    page.until(f"document.getElementById('place')?.textContent === '1 of {total}'")
    # The address alone brings the outline back.
    open_map(page, server, f"#/map?outline={outline}")
    assert page.run(PICKED).startswith(f"{total} samples")
    page.run("document.getElementById('points').focus()")
    page.key("Escape", 27)
    page.until("document.getElementById('picked').hidden && !location.hash.includes('outline')")
    assert not page.errors


@needs_chromium
def test_points_show_a_thumbnail_and_open_their_sample(page, server, points):
    open_map(page, server)
    x, y = pixel(page, points, 5)
    mouse(page, "mouseMoved", x, y)
    page.until("!document.getElementById('tip').hidden")
    position = int(page.run("document.getElementById('tip').dataset.position"))
    page.until("document.querySelector('#tip .caption bdi')")
    page.until("document.querySelector('#tip img').naturalWidth > 0")
    caption = ask(server, f"/api/sample/{position}")["sample"]["caption"]
    assert page.run("document.querySelector('#tip .caption bdi').textContent") == caption
    mouse(page, "mousePressed", x, y, True)
    mouse(page, "mouseReleased", x, y)
    page.until(f"document.getElementById('sample').dataset.position === '{position}'")
    assert not page.errors


@needs_chromium
def test_the_map_works_with_the_keyboard(page, server):
    open_map(page, server)
    whole = page.run(IN_VIEW)
    assert whole == "List the 127 samples in view"
    page.run("document.getElementById('points').focus()")
    for _ in range(4):
        page.key("+", 187, "+")
    page.key("ArrowRight", 39)
    page.until(f"{IN_VIEW} !== {whole!r}")
    shown = int(page.run(IN_VIEW).split()[2])
    page.key("Enter", 13, "\r")
    page.until(f"/^{shown} samples?$/.test({STATUS}) || {shown} === 0")
    page.run("history.back()")
    page.until(f"{BODY} && !document.getElementById('map').hidden")
    assert page.run(IN_VIEW).split()[2] == str(shown)
    page.run("document.getElementById('points').focus()")
    page.key("0", 48, "0")
    page.until(f"{IN_VIEW} === {whole!r}")
    # An entry of the legend leaves only its samples.
    page.run("document.querySelector('#legend button').focus()")
    page.key("Enter", 13, "\r")
    page.until("document.querySelector('#legend [aria-pressed=true]') === document.activeElement")
    assert not page.errors


@needs_chromium
@pytest.mark.parametrize("way", ["kept", "reason", "score", "cluster"])
@pytest.mark.parametrize("dark", [False, True])
def test_points_are_drawn_in_the_colours_of_the_legend(page, server, points, way, dark):
    open_map(page, server, f"#/map?colour={way}", width=360, height=800, dark=dark)
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    assert page.run("document.getElementById('points').dataset.renderer") == "webgl"
    totals = page.run("[...document.querySelectorAll('#legend button')].map(b => b.textContent)")
    assert sum(int(text.rsplit("(", 1)[1].rstrip(")")) for text in totals) == 127
    colours = page.run("[...document.querySelectorAll('.swatch')].map(s => s.style.background)")
    assert len(set(colours)) == len(colours)
    x, y = (value - start for value, start in zip(pixel(page, points, 7), box(page)[:2], strict=True))
    script = (
        "(c => { const p = document.createElement('canvas'); p.width = c.width; p.height = c.height;"
        "const x = p.getContext('2d'); x.drawImage(c, 0, 0);"
        f"return [...x.getImageData({x:.0f} - 1, {y:.0f} - 1, 3, 3).data].some(v => v > 100) }})"
        "(document.getElementById('points'))"
    )
    assert page.run(script)
    if not dark:
        assert serious_violations(page) == []
    assert not page.errors
