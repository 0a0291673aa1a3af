"""The explorer over HTTP: its answers, and the requests it refuses."""

import errno
import io
import itertools
import json
import logging
import socket
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from d2prune.cli.main import main
from d2prune.explore.api import Explorer
from d2prune.explore.server import Server, _Handler
from tests.explore.conftest import HOSTILE, SAME
from tests.explore.requests import ask, get


@pytest.fixture(scope="module")
def server(finished):
    with Server(Explorer(finished)) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()


def test_server_listens_on_loopback_and_checks_the_host_header(server):
    assert server.server_address[0] == "127.0.0.1"
    port = server.server_address[1]
    assert get(server, "/", Host=f"localhost:{port}")[0].status == 200
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", ""):
        answer, body = get(server, "/api/run", Host=host)
        assert answer.status == 403 and b"samples" not in body


def test_every_response_has_security_headers(server):
    for path in ("/", "/app.js", "/api/run", "/image/small/0", "/nothing"):
        answer, _ = get(server, path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    for path in ("/../cli.py", "/page/app.js", "/%2e%2e/index.py", "/api/sample/-1", "/image/huge/0"):
        assert get(server, path)[0].status in (400, 404)


def test_run_summary_has_the_counts_of_the_run(server, finished, finished_result):
    about = ask(server, "/api/run")
    counters = finished_result.manifests["select"].counters
    assert about["samples"] == len(finished) == 127 and about["rejected"] == 1
    assert about["kept"] == counters["kept"] == about["reasons"]["kept"]
    assert about["reasons"]["below-budget"] == counters["below_budget"]


def test_search_by_uid_key_and_caption(server, finished):
    assert [
        row["position"] for row in ask(server, f"/api/samples?q={SAME}&sort=position&order=up")["rows"]
    ] == [
        125,
        126,
    ]
    assert ask(server, "/api/samples?q=AAAAAAAA")["total"] == 2
    assert [row["caption"] for row in ask(server, "/api/samples?q=quote")["rows"]] == [HOSTILE["quote"]]
    red = ask(server, "/api/samples?q=A%20Red&limit=200")
    assert red["total"] == len(red["rows"]) > 10
    assert all("a red" in row["caption"] for row in red["rows"])
    assert ask(server, "/api/samples?q=%25%5B.*")["total"] == 0


@pytest.mark.parametrize(
    ("sort", "value"), [("selection", "selection"), ("score", "score"), ("forward", "forward")]
)
def test_sort_and_filter(server, sort, value):
    rows = ask(server, f"/api/samples?sort={sort}&limit=200")["rows"]
    assert len(rows) == 127
    assert all(a[value] >= b[value] for a, b in itertools.pairwise(rows))
    up = ask(server, f"/api/samples?sort={sort}&order=up&limit=200")["rows"]
    assert [row["position"] for row in up] == [row["position"] for row in rows][::-1]
    kept = ask(server, f"/api/samples?sort={sort}&reason=kept&limit=200")["rows"]
    assert [row["position"] for row in kept] == [row["position"] for row in rows if row["kept"]]
    middle = sorted(row["score"] for row in rows)[60]
    low = ask(server, f"/api/samples?sort={sort}&low={middle + 1e-6}&limit=200")
    assert low["total"] == sum(row["score"] > middle for row in rows)
    second = ask(server, f"/api/samples?sort={sort}&start=10&limit=5")["rows"]
    assert second == rows[10:15]


def test_clamped_scores_are_marked(server):
    rows = ask(server, "/api/samples?sort=score&order=up&limit=200")["rows"]
    # The automatic offset is minus the lowest score, so exactly one difficulty is 0.
    assert [row["clamped"] for row in rows] == [True] + [False] * 126


def test_filter_and_sort_by_cluster(server):
    listed = ask(server, "/api/clusters")
    clusters = server.explorer.index.clusters
    assert listed["complete"] and sum(row["samples"] for row in listed["clusters"]) == 127
    assert len(listed["clusters"]) > 2
    for row in listed["clusters"]:
        rows = ask(server, f"/api/samples?cluster={row['number']}&limit=200")["rows"]
        members = np.flatnonzero(clusters.label_N == row["number"]).tolist()
        assert sorted(found["position"] for found in rows) == members and len(members) == row["samples"]
        assert sum(found["kept"] for found in rows) == row["kept"]
        assert ask(server, f"/api/sample/{members[0]}")["cluster"] == row["number"]
    both = ask(server, "/api/samples?cluster=0&reason=kept&limit=200")["rows"]
    assert both and all(row["kept"] and clusters.label_N[row["position"]] == 0 for row in both)
    rows = ask(server, "/api/samples?sort=cluster&limit=200")["rows"]
    keys = [(int(clusters.label_N[row["position"]]), -row["selection"]) for row in rows]
    assert len(rows) == 127 and keys == sorted(keys)
    reasons = [row["reason"] for row in ask(server, "/api/samples?sort=reason&limit=200")["rows"]]
    assert len(list(itertools.groupby(reasons))) == len(set(reasons)) == 2
    assert ask(server, "/api/samples?cluster=99")["total"] == 0
    assert get(server, "/api/samples?cluster=x")[0].status == 400


@pytest.mark.parametrize(("max_pixels", "found"), [(48 * 48, True), (48 * 48 - 1, False), (None, True)])
@pytest.mark.parametrize("size", ["small", "large", "full"])
def test_images_beyond_the_limit_of_the_run_are_not_decoded(finished, max_pixels, found, size):
    """The run's own limit; for runs without one, of tables, its default."""
    params = {name: value for name, value in finished.embed.params.items() if name != "max_pixels"}
    if max_pixels is not None:
        params["max_pixels"] = max_pixels
    explorer = Explorer(replace(finished, embed=replace(finished.embed, params=params)))
    assert bool(explorer.image(120, size, {})) is found


def test_sample_and_its_image(server):
    explanation = ask(server, "/api/sample/120")
    assert explanation["sample"]["caption"] == HOSTILE["html"] and explanation["reconciled"]
    assert explanation["neighbours"] and explanation["url"].endswith("00000003.tar")
    answer, body = get(server, "/image/small/120")
    assert answer.headers["Content-Type"] == "image/webp" and Image.open(io.BytesIO(body)).size == (48, 48)
    assert get(server, "/api/sample/127")[0].status == 400


def test_preview_of_another_fraction_equals_a_run(server, finished):
    index = server.explorer.index
    order = np.lexsort((np.arange(len(finished)), -index.ranking.fixed_N))
    kept = set(np.flatnonzero(index.ranking.kept_N).tolist())
    for fraction in (0.01, 0.1, 0.3, 0.55, 1.0):
        size = max(1, int(127 * round(fraction * 100) // 100))
        now = set(order[:size].tolist())
        preview = ask(server, f"/api/preview?fraction={fraction}&limit=200")
        assert preview["size"] == size
        assert {row["position"] for row in preview["added"]["rows"]} == now - kept
        assert {row["position"] for row in preview["removed"]["rows"]} == kept - now
    for wrong in ("0", "1.5", "x", "", "nan"):
        answer, body = get(server, f"/api/preview?fraction={wrong}")
        assert answer.status == 400 and "fraction" in json.loads(body)["error"]


def test_taken_or_invalid_port_is_a_usage_error(server, finished, capsys):
    port = server.server_address[1]
    for value, line in ((port, f"--port {port}: "), (99999, "--port: found 99999; expected a whole number")):
        assert main(["explore", finished.work_dir, "--port", str(value)]) == 2
        assert f"d2prune: {line}" in capsys.readouterr().err


def send(server, data, read=True):
    """What the server answers to these bytes, after which the client sends no more; b"" if it hangs up."""
    with socket.create_connection(server.server_address, timeout=20) as connection:
        try:
            connection.sendall(data)
            if not read:
                return b""
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(1 << 16), b""))
        except OSError as error:
            # ENOTCONN: the server closed before this end did; it is no ConnectionError.
            if isinstance(error, ConnectionError) or error.errno == errno.ENOTCONN:
                return b""
            raise


def statuses(answer):
    lines = [line for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.")]
    return [int(line.split()[1]) for line in lines]


@pytest.fixture
def undisturbed(server, caplog, capfd):
    """No request of the test may leave a word on the terminal, and the next one works."""
    with caplog.at_level(logging.INFO):
        yield
        assert ask(server, "/api/samples?limit=1")["total"] == 127
    printed = capfd.readouterr()
    assert caplog.text == printed.out == printed.err == ""


def request(server, path, method="GET", more=""):
    host = f"127.0.0.1:{server.server_address[1]}"
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode("utf-8", "surrogateescape")


HUGE = "9" * 5000
WRONG_PATHS = [
    "//[",
    "/api/samples?start=-1",
    "/api/samples?limit=1.5",
    "/api/samples?low=nan",
    "/api/samples?high=1e999",
    f"/api/samples?low={HUGE}",
    "/api/samples?low=0x10",
    "/api/samples?sort=nothing",
    "/api/samples?cluster=-1",
    "/api/preview?fraction=-inf",
    f"/api/preview?fraction={HUGE}",
    "/api/preview?fraction=1e30",
    f"/api/sample/{HUGE}",
    f"/api/sample/{10**30}",
    "/api/sample/999999999999999999",
    "/image/small/999999999999999999",
    "/%00",
    "/\xff\xfe",
    "/" + "a" * 70_000,
    "/?" + "a=1&" * 15_000,
    "*",
    "http://[::1/",
    "..",
]


@pytest.mark.parametrize("path", WRONG_PATHS, ids=lambda path: path[:30])
def test_wrong_requests_get_a_client_error(server, undisturbed, path):
    (status,) = statuses(send(server, request(server, path)))
    # Only a query that the page ignores is fine.
    assert 400 <= status < 500 or (path.startswith("/?") and status == 200)


@pytest.mark.parametrize(
    "path",
    [
        f"/api/samples?start={10**30}",
        f"/api/samples?start={HUGE}&limit={HUGE}",
        f"/api/samples?cluster={HUGE}",
        "/api/samples?low=-1e308&high=1e308",
        "/api/samples?q=%ff%fe%00%ed%a0%80%",
        "/api/samples?q=" + "%F0%9F%98%80" * 2_000,
        "/api/preview?fraction=1e-300",
    ],
    ids=lambda path: path[:40],
)
def test_numbers_and_texts_of_any_size_are_answered(server, undisturbed, path):
    assert statuses(send(server, request(server, path))) == [200]


RAW = [
    b"",
    b"\r\n",
    b"\0" * 100,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET\r\n\r\n",
    b"GET /\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/x\r\n\r\n",
    b"GET / HTTP/1.1 more\r\n\r\n",
    b"GET / HTTP/1.1",
    b"GET / HTTP/1.1\r\nHost",
    b"GET / HTTP/1.1\r\n: x\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
    b"GET / HTTP/1.1\r\na: " + b"b" * 70_000 + b"\r\n\r\n",
    b"\x1b]0;owned\x07 / HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]


@pytest.mark.parametrize("data", RAW, ids=lambda data: repr(data[:25]))
def test_what_is_no_request_is_refused(server, undisturbed, data):
    answer = send(server, data)
    assert answer == b"" or all(400 <= status < 500 for status in statuses(answer))
    assert b"<" not in answer and (answer == b"" or statuses(answer))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.sampled_from([b"", b"GET ", b"GET / HTTP/1.1\r\n", b"POST /api/run "]))
def test_any_bytes_are_refused(server, undisturbed, data, start):
    answer = send(server, start + data + b"\r\n\r\n")
    assert all(400 <= status < 500 for status in statuses(answer))


@pytest.mark.parametrize(
    "method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "X-Y"]
)
def test_other_methods_are_not_allowed(server, undisturbed, method):
    answer = send(server, request(server, "/api/run", method, "Content-Length: 5\r\n") + b"GET /")
    assert statuses(answer) == [405]
    assert method != "HEAD" or answer.endswith(b"\r\n\r\n")


def test_a_body_is_not_taken_for_a_request(server, undisturbed):
    inner = request(server, "/api/run")
    answer = send(server, request(server, "/app.css", more=f"Content-Length: {len(inner)}\r\n") + inner)
    assert statuses(answer) == [200] and b"max_fraction" not in answer


def test_two_host_headers_are_refused(server, undisturbed):
    more = f"Host: localhost:{server.server_address[1]}\r\n"
    assert statuses(send(server, request(server, "/api/run", more=more))) == [403]


def test_clients_that_hang_up_leave_no_trace(server, undisturbed):
    for path in ("/", "/api/samples?limit=200", "/image/large/0"):
        for _ in range(5):
            connection = socket.create_connection(server.server_address)
            # A reset instead of an orderly end: the server's next write fails.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.sendall(request(server, path) * 20)
            connection.close()
    time.sleep(0.2)


def test_a_slow_client_is_cut_off(server, undisturbed, monkeypatch):
    monkeypatch.setattr(_Handler, "timeout", 0.3)
    start = time.monotonic()
    with socket.create_connection(server.server_address) as connection, pytest.raises(ConnectionError):
        while time.monotonic() < start + 10:
            connection.sendall(b"G")
            time.sleep(0.05)
    assert time.monotonic() < start + 5


def test_connections_beyond_the_limit_are_refused(server, monkeypatch):
    monkeypatch.setattr("d2prune.explore.server._MAX_CONNECTIONS", 3)
    with Server(server.explorer) as small:
        threading.Thread(target=small.serve_forever, daemon=True).start()
        idle = [socket.create_connection(small.server_address) for _ in range(3)]
        with socket.create_connection(small.server_address, timeout=20) as refused:
            answer = b"".join(iter(lambda: refused.recv(1 << 16), b""))
        assert statuses(answer) == [503] and answer.endswith(b"\r\n\r\ntoo many connections\n")
        for connection in idle:
            connection.close()
        for _ in range(100):
            if statuses(send(small, request(small, "/api/run"))) == [200]:
                break
            time.sleep(0.05)
        assert ask(small, "/api/run")["samples"] == 127
        small.shutdown()


def test_the_explorer_shows_no_credentials(server, undisturbed, monkeypatch):
    shown = {"url": "https://me:pw@host/x?sig=abc", "caption": "\x1b[1m"}
    monkeypatch.setattr(server.explorer, "describe_run", lambda parameters: shown)
    assert ask(server, "/api/run") == {"url": "https://host/x", "caption": "\x1b[1m"}
