"""`d2prune explore`: serves the page and its data over HTTP, to browsers on this machine only.

Listens on 127.0.0.1, and answers only requests whose Host header names that address, which stops DNS
rebinding from other web pages. All are GET but one: an image to search for is posted, with a content type
that browsers refuse to send from other sites. A Content-Security-Policy forbids the page to load anything
from elsewhere. Whatever a client sends, it gets an answer of one line or its connection is closed, within
a time limit; a client that hangs up is no error. Invariant: nothing is written but the layout of the map.
"""

import contextlib
import itertools
import logging
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from d2prune.console import print_line
from d2prune.errors import D2PruneError, UserError
from d2prune.explore.api import Explorer
from d2prune.redaction import encode_json

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
_FOLDER = Path(__file__).parent / "page"
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FILES = {f"/{path.name}": path for path in _FOLDER.iterdir() if path.suffix in _KINDS}
_FILES["/"] = _FILES["/index.html"]
_EXPORTS = {
    "samples.parquet": "application/vnd.apache.parquet",
    "rejected.parquet": "application/vnd.apache.parquet",
    "subset.npy": "application/octet-stream",
}
# Of an image that is posted, in bytes; its pixels are limited as those of the pool are.
MAX_IMAGE_BYTES = 20 << 20
_IMAGE_TYPE = "application/octet-stream"
# A browser opens six connections at most, and each keeps a thread until it has been idle for a minute.
_MAX_CONNECTIONS = 64
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Other sites can neither embed images from here nor access a window that shows this page.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 21\r\n"
    b"Connection: close\r\n\r\ntoo many connections\n"
)

# What http.server calls its own fault, or the client's HTML page, in one line for the client.
_REFUSALS = {
    HTTPStatus.NOT_IMPLEMENTED: HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.HTTP_VERSION_NOT_SUPPORTED: HTTPStatus.BAD_REQUEST,
}


class Server(ThreadingHTTPServer):
    """Serves one explorer on a port of the loopback interface; port 0 picks a free one."""

    daemon_threads = True

    def __init__(self, explorer: Explorer, port: int = 0) -> None:
        self.explorer = explorer
        self._free = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"--port {port}: {reason}; expected a free port, or 0 to pick one") from error

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in its own thread; refuse it if all threads are taken."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        with contextlib.suppress(OSError):
            request.setblocking(False)
            request.sendall(_BUSY)
            # Closing with bytes unread resets the connection, and the client may lose the answer.
            request.recv(1 << 16)
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log an error that no handler caught, unless the client closed the connection."""
        if not isinstance(sys.exception(), OSError):
            log.exception("explore: a request failed")

    @property
    def url(self) -> str:
        """URL of the page."""
        return f"http://{HOST}:{self.server_address[1]}/"

    @property
    def hosts(self) -> tuple[list[str], ...]:
        """Accepted Host headers: one, with one of these values."""
        port = self.server_address[1]
        return [f"{HOST}:{port}"], [f"localhost:{port}"]


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version = "d2prune"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    # In seconds, for a request to arrive and for an answer to be taken: no connection, idle or slow,
    # may hold a thread forever.
    timeout = 60

    def handle_one_request(self) -> None:
        # `timeout` alone limits each read, and a client may send one byte a minute.
        self._deadline = threading.Timer(self.timeout, self._hang_up)
        self._deadline.daemon = True
        self._deadline.start()
        try:
            super().handle_one_request()
        except OSError:
            # The client closed the connection, or stopped reading.
            self.close_connection = True
        finally:
            self._deadline.cancel()

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def do_GET(self) -> None:
        self._deadline.cancel()
        self._respond(self._answer)

    def do_POST(self) -> None:
        # The deadline holds until the body has arrived.
        self._respond(self._take_image)

    def _respond(self, answer: Callable[[str, Mapping[str, str]], None]) -> None:
        """Answer a request that names this server; what goes wrong is one line for the client."""
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            # A body that is not read must not be taken for the next request.
            self.close_connection = True
        if self.request_version == "HTTP/0.9":
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        if [host.lower() for host in self.headers.get_all("Host", [])] not in self.server.hosts:
            self._send(HTTPStatus.FORBIDDEN, b"expected the Host header to name this server\n", "text/plain")
            return
        try:
            parts = urlsplit(self.path)
            query = dict(parse_qsl(parts.query))
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        try:
            answer(parts.path, query)
        except UserError as error:
            self._send_json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        except D2PruneError as error:
            self._send_json({"error": str(error)}, HTTPStatus.INTERNAL_SERVER_ERROR)
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            log.exception("explore: %s failed", parts.path)
            self._send_json({"error": "internal error; see the terminal"}, HTTPStatus.INTERNAL_SERVER_ERROR)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is not a GET request, in one line; the connection is closed."""
        status = _REFUSALS.get(HTTPStatus(code), HTTPStatus(code))
        self.close_connection = True
        if self.request_version == "HTTP/0.9":
            # The version of a line that could not be parsed, too; such an answer has no status.
            self.request_version = "HTTP/1.0"
        self._send(status, f"{status.phrase}; expected a GET request\n".encode(), "text/plain")

    def _take_image(self, path: str, query: Mapping[str, str]) -> None:
        """Answer a posted image with its name in searches; the body is held in memory only."""
        if path != "/api/image":
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)
            return
        length = self.headers.get("Content-Length", "")
        # Another site's page may post only types that forms have; for any other its browser first asks
        # with OPTIONS, which is refused.
        if self.headers.get("Content-Type") != _IMAGE_TYPE:
            raise UserError(f"image: found another content type; expected {_IMAGE_TYPE}")
        if not re.fullmatch(r"[0-9]{1,12}", length) or "Transfer-Encoding" in self.headers:
            raise UserError("image: found no Content-Length; expected that of the image, in bytes")
        if int(length) > MAX_IMAGE_BYTES:
            raise UserError(f"image: found {int(length):,} bytes; expected at most {MAX_IMAGE_BYTES:,}")
        data = self.rfile.read(int(length))
        self._deadline.cancel()
        if len(data) < int(length):
            # The client closed the connection.
            return
        self._send_json(self.server.explorer.add_image(data, query))

    def _answer(self, path: str, query: Mapping[str, str]) -> None:
        explorer = self.server.explorer
        answers = {
            "/api/runs": lambda _: explorer.runs(),
            "/api/run": explorer.describe_run,
            "/api/samples": explorer.search,
            "/api/around": explorer.around,
            "/api/meaning": explorer.meaning,
            "/api/clusters": explorer.clusters,
            "/api/preview": explorer.preview,
            "/api/compare": explorer.compare,
            "/api/coverage": explorer.coverage,
            "/api/rejected": explorer.rejected,
            "/api/map": explorer.map,
        }
        if path in _FILES:
            self._send(HTTPStatus.OK, _FILES[path].read_bytes(), _KINDS[_FILES[path].suffix])
        elif path in answers:
            self._send_json(answers[path](query))
        elif path == "/api/map/points":
            self._send(HTTPStatus.OK, explorer.map_points(query), "application/octet-stream")
        elif match := re.fullmatch(r"/api/sample/([^/]{1,100})", path):
            self._send_json(explorer.explain(unquote(match[1]), query))
        elif match := re.fullmatch(r"/image/(small|large|full)/(\d{1,18})", path):
            image = explorer.image(int(match[2]), match[1], query)
            if image:
                self._send(HTTPStatus.OK, image, "image/webp", "private, max-age=3600")
            else:
                self._send(HTTPStatus.NOT_FOUND, b"", "text/plain")
        elif path.startswith("/export/") and (name := path.removeprefix("/export/")) in _EXPORTS:
            self._send_file(name, explorer.export(name, query))
        else:
            self._send(HTTPStatus.NOT_FOUND, b"not found\n", "text/plain")

    def _send_file(self, name: str, pieces: Iterator[bytes]) -> None:
        """Send a download in chunks; an error after the first chunk closes the connection."""
        # Errors of the parameters, and of reading the first part, are still reported with a status.
        first = next(pieces, b"")
        # HTTP/1.0 has no chunks; there the end of the connection is the end of the file.
        chunked = self.request_version != "HTTP/1.0"
        self.close_connection |= not chunked
        how = {"Transfer-Encoding": "chunked"} if chunked else {"Connection": "close"}
        named = {"Content-Disposition": f'attachment; filename="{name}"'}
        self._send_head(_EXPORTS[name], "no-store", how | named)
        try:
            for piece in itertools.chain([first], pieces):
                if piece:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            if chunked:
                self.wfile.write(b"0\r\n\r\n")
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:
            # The client sees that the last chunk is missing, and discards the file.
            log.error("explore: %s: %s", name, error, exc_info=not isinstance(error, D2PruneError))
            self.close_connection = True

    def _send_json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(status, encode_json(value, allow_nan=False), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str, cache: str = "no-store") -> None:
        self._send_head(kind, cache, {"Content-Length": str(len(body))}, status)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_head(
        self, kind: str, cache: str, more: Mapping[str, str], status: HTTPStatus = HTTPStatus.OK
    ) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Cache-Control": cache, **more}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        log.debug("explore: " + format, *arguments)


def serve(explorer: Explorer, port: int, address: str = "") -> None:
    """Serve until interrupted by Ctrl-C.

    Args:
        explorer: what to serve.
        port: to listen on; 0: any.
        address: what to print behind the page's URL, such as `#/compare?a=...`.

    Raises:
        UserError: the port is taken or invalid.
    """
    with Server(explorer, port) as server:
        print_line(server.url + address)
        print_line("Press Ctrl-C to stop. The page is available on this machine only.", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print_line()
