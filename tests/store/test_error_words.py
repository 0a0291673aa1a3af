"""Each cause of a storage error in its own words, with a next step; "not found" means only that."""

import contextlib
import errno
import http.server
import os
import socket
import ssl
import threading

import aiohttp
import botocore.exceptions
import fsspec.exceptions
import pytest
from s3fs.errors import translate_boto_error

from d2prune import store
from d2prune.errors import InfrastructureError, UserError
from d2prune.store import faults, retries


@pytest.fixture(autouse=True)
def _once(monkeypatch):
    monkeypatch.setenv(retries.ATTEMPTS_VARIABLE, "1")


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(self.path.split("/")[1]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def port():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def refused():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        # Bound and not listening: no other process can take it meanwhile.
        yield closed.getsockname()[1]


WORK = {
    "info": store.info,
    "exists": store.exists,
    "read": store.read_bytes,
    "list": lambda url: store.list_files(url.rpartition("/")[0]),
    "glob": lambda url: store.find_files(url.rpartition("/")[0] + "/*.tar", [".tar"]),
}


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize(
    ("url", "kind", "words"),
    [
        (
            "http://127.0.0.1:{refused}/d/x.tar",
            InfrastructureError,
            "no server answers there: check the address",
        ),
        ("http://no-such-host.invalid/d/x.tar", InfrastructureError, "host name is not known here"),
        ("https://127.0.0.1:{port}/200/x.tar", UserError, "TLS certificate was not accepted"),
        ("http://127.0.0.1:{port}/401/x.tar", UserError, "the credentials are missing or wrong"),
        ("http://127.0.0.1:{port}/403/x.tar", UserError, "refuses access with these credentials"),
        ("http://127.0.0.1:{port}/500/x.tar", InfrastructureError, "500"),
        ("http://127.0.0.1:{port}/504/x.tar", InfrastructureError, "504"),
    ],
)
def test_http_errors_are_not_absence(port, refused, work, url, kind, words):
    with pytest.raises(kind, match=words) as caught:
        WORK[work](url.format(port=port, refused=refused))
    assert "not found" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [404, 410])
def test_what_the_server_calls_absent_is_absent(port, status):
    url = f"http://127.0.0.1:{port}/{status}/x.tar"
    assert not store.exists(url)
    for work in ("info", "read"):
        with pytest.raises(FileNotFoundError, match=r"x\.tar: not found"):
            WORK[work](url)
    assert WORK["list"](url) == WORK["glob"](url) == []


@pytest.mark.parametrize("work", WORK)
def test_a_refused_connection_to_s3_names_the_endpoint(monkeypatch, refused, work):
    for name, value in {
        "ACCESS_KEY_ID": "a",
        "SECRET_ACCESS_KEY": "b" * 20,
        "DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{refused}")
    with pytest.raises(InfrastructureError, match=r"no server answers there: .* \(AWS_ENDPOINT_URL\)"):
        WORK[work]("s3://bucket/folder/x.tar")


def _boto(code, message, status=400):
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return translate_boto_error(botocore.exceptions.ClientError(response, "GetObject"))


def _caused(error, cause):
    error.__cause__ = cause
    return error


def _key(host="host"):
    return aiohttp.client_reqrep.ConnectionKey(host, 443, True, True, None, None, None)


RAISED = [
    (
        _boto(
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
        ),
        UserError,
        "set this machine's clock",
    ),
    (_boto("403", "Forbidden"), UserError, "check their permissions"),
    (_boto("AccessDenied", "Access Denied"), UserError, "check their permissions"),
    (_boto("AccessDenied", "Request has expired"), UserError, "set this machine's clock, or renew the URL"),
    (_boto("ExpiredToken", "The provided token has expired."), UserError, "renew them"),
    (
        _boto("SignatureDoesNotMatch", "The request signature we calculated does not match"),
        UserError,
        "credentials are missing or wrong",
    ),
    (
        _boto("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
        UserError,
        "credentials are missing or wrong",
    ),
    (
        _boto(
            "PermanentRedirect",
            "The bucket you are attempting to access must be addressed using the specified endpoint.",
        ),
        UserError,
        "another region: set AWS_DEFAULT_REGION",
    ),
    (_boto("301", "Moved Permanently"), UserError, "another region"),
    (
        _boto("AuthorizationHeaderMalformed", "the region 'us-east-1' is wrong; expecting 'eu-west-1'"),
        UserError,
        "another region",
    ),
    (_boto("SlowDown", "Please reduce your request rate."), InfrastructureError, "reduce your request rate"),
    (
        _boto("RequestTimeout", "Your socket connection was not read from within the timeout period."),
        InfrastructureError,
        "did not answer in time",
    ),
    (botocore.exceptions.NoCredentialsError(), UserError, "credentials are missing or wrong"),
    (
        botocore.exceptions.ConnectTimeoutError(endpoint_url="https://s3"),
        InfrastructureError,
        "did not answer in time",
    ),
    (
        botocore.exceptions.SSLError(endpoint_url="https://s3", error="certificate verify failed"),
        UserError,
        "TLS certificate",
    ),
    (
        _caused(
            botocore.exceptions.EndpointConnectionError(endpoint_url="https://s3"),
            aiohttp.ClientConnectorDNSError(_key(), OSError(-2, "Name or service not known")),
        ),
        InfrastructureError,
        "host name is not known here",
    ),
    (
        _caused(FileNotFoundError("https://h/x"), TimeoutError()),
        InfrastructureError,
        "did not answer in time",
    ),
    (
        _caused(FileNotFoundError("https://h/x"), aiohttp.ServerDisconnectedError()),
        InfrastructureError,
        "Disconnected",
    ),
    (
        _caused(
            FileNotFoundError("https://h/x"),
            aiohttp.ClientConnectorCertificateError(
                _key(), ssl.SSLCertVerificationError("self-signed certificate")
            ),
        ),
        UserError,
        "TLS certificate",
    ),
    (
        OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH)),
        InfrastructureError,
        "Network is unreachable",
    ),
    (fsspec.exceptions.FSTimeoutError(), InfrastructureError, "did not answer in time"),
    (TimeoutError(), InfrastructureError, "did not answer in time"),
]


@pytest.mark.parametrize(("error", "kind", "words"), RAISED, ids=lambda value: str(value)[:40])
def test_every_cause_has_its_words(error, kind, words):
    with pytest.raises(kind, match=words) as caught, faults.translated("s3://bucket/403/connection-refused"):
        raise error
    assert str(caught.value).startswith("s3://bucket/403/connection-refused: ")
    assert "\n" not in str(caught.value) and "not found" not in str(caught.value)


def test_names_of_objects_are_not_words_of_errors():
    with pytest.raises(InfrastructureError) as caught, faults.translated("s3://b/403"):
        raise _boto("InternalError", "failed: https://b/certificate-expired-403/forbidden")
    assert str(caught.value).count(";") == 0


def test_chained_exceptions_hold_no_credentials():
    """A traceback shows what an error was made from, too."""
    request = aiohttp.RequestInfo("https://me:pw@h/x", "GET", {}, "https://me:pw@h/x?sig=abc")
    for raised in (
        aiohttp.ClientResponseError(request, (), status=403),
        FileNotFoundError("https://me:pw@h/x"),
    ):
        with pytest.raises((UserError, FileNotFoundError)) as caught, faults.translated("https://me:pw@h/x"):
            raise raised
        assert "pw" not in str(caught.value) and "pw" not in str(caught.value.__cause__)
        assert "https://h/x" in str(caught.value.__cause__)
    plain = FileNotFoundError("/data/x")
    with pytest.raises(FileNotFoundError) as caught, faults.translated("/data/x"):
        raise plain
    assert caught.value.__cause__ is plain


def test_urls_that_would_become_folders_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for url in ("s3:/bucket/x", "https:/host/x", "abfs://c@account:KEY/x", "zip://a::s3://K:S/E@b/x"):
        with pytest.raises(UserError, match="expected"):
            store.write_bytes(url, b"x")
    with contextlib.chdir(tmp_path):
        assert os.listdir() == []
