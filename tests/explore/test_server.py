"""The explorer over HTTP: its answers, and the requests it refuses."""

import http.client
import io
import itertools
import json
import threading

import numpy as np
import pytest
from PIL import Image

from d2prune.cli.main import main
from d2prune.explore.api import Explorer
from d2prune.explore.server import Server
from tests.explore.conftest import HOSTILE, SAME


@pytest.fixture(scope="module")
def server(finished):
    with Server(Explorer(finished)) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()


def get(server, path, **headers):
    connection = http.client.HTTPConnection(*server.server_address)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def ask(server, path):
    answer, body = get(server, path)
    assert answer.status == 200, body
    return json.loads(body)


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
    for port in (server.server_address[1], 99999):
        assert main(["explore", finished.work_dir, "--port", str(port)]) == 2
        error = capsys.readouterr().err
        assert f"d2prune: --port {port}: " in error and "expected a free port" in error
