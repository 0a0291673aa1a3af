"""Input from web servers and from stores that do not list: files are asked for by name."""

import contextlib
import http.server
import re
import threading
import time
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from d2prune import store
from d2prune.errors import InfrastructureError, UserError
from d2prune.inputs.find import find_input
from d2prune.inputs.shards import expand_input, pool_identity


class Server:
    """Files of a web server on loopback.

    Attributes:
        files: path -> content.
        lists: whether folders are pages of links; otherwise they are refused with `refusal`.
        query: what every request needs, as a presigned URL has it; a set: one of these.
        heads: whether HEAD is allowed; a URL signed for GET allows no other method.
        at_once: the most requests in progress at one time.
    """

    def __init__(self):
        self.files, self.lists, self.refusal, self.query, self.heads = {}, False, 404, "", True
        self.at_once = self._now = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def count(self):
        with self._lock:
            self._now += 1
            self.at_once = max(self.at_once, self._now)
        yield
        with self._lock:
            self._now -= 1


def make_handler(server):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments):
            pass

        def do_HEAD(self):
            self.answer()

        def do_GET(self):
            with server.count():
                time.sleep(0.002)
                self.answer()

        def answer(self):
            parts = urlsplit(self.path)
            path = unquote(parts.path)
            if self.command == "HEAD" and not server.heads:
                self.send(405, b"")
            elif parts.query not in ({server.query} if isinstance(server.query, str) else server.query):
                self.send(403, b"")
            elif path in server.files:
                self.send_file(server.files[path])
            elif server.lists:
                below = {name[len(path) :] for name in server.files if name.startswith(path)}
                links = sorted({re.match("[^/]*/?", name)[0] for name in below})
                page = "".join(f'<a href="{link}">{link}</a>' for link in ["../", "?C=N;O=D", *links])
                self.send(200 if below else 404, page.encode())
            else:
                self.send(server.refusal, b"")

        def send_file(self, data):
            found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if not found:
                self.send(200, data)
                return
            start, stop = int(found[1]), min(int(found[2]) + 1, len(data))
            self.send(206, data[start:stop], {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"})

        def send(self, status, data, headers=None):
            self.send_response(status)
            for name, value in {
                "Content-Length": len(data),
                "ETag": f'"{hash(data)}"',
                **(headers or {}),
            }.items():
                self.send_header(name, str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    return Handler


@pytest.fixture
def web():
    server = Server()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), make_handler(server)) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        server.url = f"http://127.0.0.1:{listening.server_port}"
        yield server
        listening.shutdown()


def contents(given):
    return [store.read_range(shard.url, 0, shard.size).decode() for shard in expand_input(given)]


NUMBERS = [f"{number:05d}" for number in range(40)]


@pytest.fixture
def forty(web):
    web.files = {f"/p/{number}.tar": number.encode() for number in NUMBERS}
    return web


@pytest.mark.parametrize("refusal", [403, 404, 405, 200])
@pytest.mark.parametrize("heads", [True, False])
def test_any_number_of_names_works_without_a_listing(forty, refusal, heads):
    forty.refusal, forty.heads = refusal, heads
    assert contents(f"{forty.url}/p/{{00000..00011}}.tar") == NUMBERS[:12]
    assert contents([f"{forty.url}/p/{number}.tar" for number in NUMBERS[::-1]]) == NUMBERS[::-1]
    shards = expand_input(f"{forty.url}/p/{{00000..00039}}.tar")
    assert [shard.name for shard in shards] == NUMBERS and all(
        shard.size == 5 and shard.version for shard in shards
    )


def test_names_are_asked_for_concurrently_and_bounded(forty, monkeypatch):
    forty.heads = False
    monkeypatch.setattr("d2prune.store.retries.requests", lambda: 4)
    expand_input(f"{forty.url}/p/{{00000..00039}}.tar")
    assert 1 < forty.at_once <= 4


def test_a_missing_name_is_one_line(forty):
    with pytest.raises(UserError, match=r"00040\.tar, .*: does not exist \(of 42 named by"):
        expand_input(f"{forty.url}/p/{{00000..00041}}.tar")


def test_a_page_of_links_is_a_listing(forty):
    forty.lists = True
    forty.files |= {"/p/more/x.tar": b"more", "/p/._x.tar": b"no", "/p/notes.txt": b"no", "/q/x.tar": b"no"}
    assert contents(f"{forty.url}/p") == [*NUMBERS, "more"]
    assert contents(f"{forty.url}/p/0000?.tar") == NUMBERS[:10]
    assert contents(f"{forty.url}/p/*/*.tar") == ["more"]


@pytest.mark.parametrize("item", ["p", "p/"])
def test_a_folder_without_a_listing_is_one_line_that_names_the_way_out(forty, item):
    with pytest.raises(UserError, match=r"this web server lists no \.tar there; name the files, as in https"):
        expand_input(f"{forty.url}/{item}")
    with pytest.raises(UserError, match="no tar matches"):
        expand_input(f"{forty.url}/p/*.tar")


@pytest.mark.parametrize(
    "query", ["X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=ab*c", "sig=a%2Fb%3D&se=2030", "sig="]
)
@pytest.mark.parametrize("heads", [True, False])
def test_a_presigned_url_is_a_name_with_a_query(forty, query, heads):
    forty.query, forty.heads = query, heads
    assert contents(f"{forty.url}/p/00003.tar?{query}") == ["00003"]
    assert contents(f"{forty.url}/p/{{00003,00001}}.tar?{query}") == ["00003", "00001"]
    found = expand_input([f"{forty.url}/p/{number}.tar?{query}" for number in NUMBERS])
    assert [shard.name for shard in found] == NUMBERS


def test_another_signature_is_the_same_pool(forty):
    identities = set()
    for query in ("sig=1", "sig=2"):
        forty.query = query
        identities.add(pool_identity(expand_input(f"{forty.url}/p/{{00003,00001}}.tar?{query}")))
    assert len(identities) == 1


def test_one_file_with_two_signatures_is_read_once(forty):
    forty.query = {"sig=1", "sig=2"}
    with pytest.raises(UserError, match="would be read twice"):
        expand_input([f"{forty.url}/p/00001.tar?sig=1", f"{forty.url}/p/00001.tar?sig=2"])


@pytest.mark.parametrize(("status", "kind"), [(403, UserError), (401, UserError), (503, InfrastructureError)])
def test_a_refusal_is_not_absence(forty, monkeypatch, status, kind):
    monkeypatch.setattr("d2prune.store.retries.attempts", lambda: 1)
    forty.refusal = status
    with pytest.raises(kind, match=str(status)):
        expand_input(f"{forty.url}/q/x.tar")


def test_a_refused_connection_is_not_absence(monkeypatch):
    monkeypatch.setattr("d2prune.store.retries.attempts", lambda: 1)
    with pytest.raises(InfrastructureError, match=r"127\.0\.0\.1:9"):
        expand_input("http://127.0.0.1:9/x.tar")


def test_tables_find_the_arrays_beside_them_by_name(web, tmp_path):
    for number in range(12):
        pq.write_table(pa.table({"uid": ["a"], "text": ["b"]}), tmp_path / f"{number}.parquet")
        np.savez(tmp_path / f"{number}.npz", l14_img=np.ones((1, 4), np.float32))
    web.files = {f"/m/{path.name}": path.read_bytes() for path in tmp_path.iterdir()}
    found = find_input(f"{web.url}/m/{{0..11}}.parquet")
    assert [file.name for file in found] == [str(number) for number in range(12)]
    assert all(file.npz is not None and not file.arrays for file in found)


def test_a_presigned_table_has_its_presigned_array(web, tmp_path):
    pq.write_table(pa.table({"uid": ["a"]}), tmp_path / "x.parquet")
    web.files = {"/m/x.parquet": (tmp_path / "x.parquet").read_bytes(), "/m/x.npz": b"array"}
    web.query = "sig=1"
    (found,) = find_input([f"{web.url}/m/x.parquet?sig=1", f"{web.url}/m/x.npz?sig=1"])
    assert found.name == "x" and found.npz.url == f"{web.url}/m/x.npz?sig=1"
