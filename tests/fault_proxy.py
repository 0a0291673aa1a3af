"""An HTTP proxy that spoils every n-th request to an S3 server, as a store under load does.

Other requests and answers pass unchanged. Signatures stay valid, since the Host header is kept.
"""

import asyncio
import contextlib
import threading
from collections import Counter
from urllib.parse import urlsplit

KINDS = ("503", "500 after the work", "429", "answer lost", "truncated", "slow", "dropped mid-upload")

_ERROR = {
    "503": ("503 Service Unavailable", "SlowDown", "Please reduce your request rate."),
    "500 after the work": ("500 Internal Server Error", "InternalError", "We encountered an internal error."),
    "429": ("429 Too Many Requests", "TooManyRequests", "Quota of requests used up."),
    "403": ("403 Forbidden", "AccessDenied", "Access Denied"),
}


class FaultProxy:
    """Spoils requests `every`, 2 * `every`, ..., by each kind in turn.

    Attributes:
        endpoint: value for AWS_ENDPOINT_URL.
        requests: (method, path) of every request.
        spoiled: number of requests spoiled, by kind.
        most_concurrent: most requests in flight at any time.
        on_request: called with the number of each request, from 1, before half of its body is read.
        only: methods of the requests to spoil; None: all.
    """

    def __init__(self, upstream, every=7, kinds=KINDS, only=None):
        self._upstream = urlsplit(upstream)
        self.in_flight = 0
        self.spoil(every, kinds, only)
        self._loop = asyncio.new_event_loop()

    def spoil(self, every=7, kinds=KINDS, only=None):
        """Begin again, with these faults."""
        self.every, self.kinds, self.only = every, kinds, only
        self.requests, self.spoiled = [], Counter()
        self.most_concurrent = self._eligible = 0
        self.on_request = lambda number: None

    def __enter__(self):
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        start = asyncio.start_server(self._connection, "127.0.0.1", 0, limit=2**20)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result(10)
        self.endpoint = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *exception):
        async def stop():
            self._server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _connection(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while await self._request(reader, writer):
                pass
        writer.close()

    async def _request(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        method, path = head.split(b" ", 2)[:2]
        headers = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:-2])
        self.requests.append((method.decode(), path.decode()))
        self.in_flight += 1
        self.most_concurrent = max(self.most_concurrent, self.in_flight)
        try:
            self.on_request(len(self.requests))
            return await self._answer(reader, writer, head, headers, self._kind(method.decode()))
        finally:
            self.in_flight -= 1

    def _kind(self, method):
        if self.only is not None and method not in self.only:
            return None
        self._eligible += 1
        if self._eligible % self.every:
            return None
        kind = self.kinds[(self._eligible // self.every - 1) % len(self.kinds)]
        self.spoiled[kind] += 1
        return kind

    async def _answer(self, reader, writer, head, headers, kind):
        if b"expect" in headers:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = int(headers.get(b"content-length", b"0"))
        assert b"transfer-encoding" not in headers
        body = await reader.readexactly(length // 2)
        if kind == "dropped mid-upload":
            writer.transport.abort()
            return False
        body += await reader.readexactly(length - len(body))
        if kind == "stalled":
            await asyncio.sleep(3)
        if kind == "slow":
            await asyncio.sleep(0.3)
        answer = b""
        if kind not in ("503", "429", "403"):
            answer = await self._forward(head, body)
        if kind == "answer lost":
            writer.transport.abort()
            return False
        if kind == "truncated":
            split = answer.index(b"\r\n\r\n") + 4
            writer.write(answer[: split + (len(answer) - split) // 2])
            await writer.drain()
            writer.close()
            return False
        if kind in _ERROR:
            status, code, message = _ERROR[kind]
            error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
            xml = b"" if head.startswith(b"HEAD") else f"<?xml version='1.0'?>{error}".encode()
            answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(xml)}\r\n\r\n".encode() + xml
        writer.write(answer)
        await writer.drain()
        return True

    async def _forward(self, head, body):
        """The complete answer of the server, on a separate connection."""
        upstream, sink = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        lines = [
            line
            for line in head.split(b"\r\n")[:-2]
            if not line.lower().startswith((b"expect:", b"connection:"))
        ]
        sink.write(b"\r\n".join([*lines, b"Connection: close", b"", b""]) + body)
        answer = await upstream.read(-1)
        sink.close()
        return answer.replace(b"Connection: close\r\n", b"", 1)
