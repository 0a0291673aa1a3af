"""Every kind of storage fault, on a real S3 server behind a proxy that spoils requests."""

import functools
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import s3fs
import tenacity

from d2prune import store
from d2prune.demo import s3_server
from d2prune.errors import InfrastructureError, UserError
from d2prune.store import read_ahead, retries, s3, s3_client
from tests.fault_proxy import KINDS, FaultProxy

PART = 2**16
DATA = random.Random(0).randbytes(9 * PART + 77)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with s3_server.serve(tmp_path_factory.mktemp("s3")) as running:
        running.make_bucket("bucket")
        yield running


@pytest.fixture(scope="module")
def proxy(server):
    """One for all tests: a filesystem of s3fs, which takes 0.1 s to make, is kept by its endpoint."""
    with FaultProxy(server.endpoint) as running:
        yield running
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def behind(server, proxy, monkeypatch):
    """`behind(**options)` sends this process's requests through the proxy; parts and blocks are small."""
    monkeypatch.setattr(s3, "PART", PART)
    monkeypatch.setattr(read_ahead, "BLOCK", PART)
    monkeypatch.setattr(retries, "_PAUSE_S", 0.02)
    with s3_server.environment(server):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)

        def start(**options):
            proxy.spoil(**options)
            return proxy

        yield start


def write(url, data=DATA):
    with store.writer(url) as stream:
        for start in range(0, len(data), 10_000):
            stream.write(data[start : start + 10_000])


@pytest.mark.parametrize("kind", KINDS)
def test_every_third_request_fails(behind, server, kind):
    proxy = behind(every=3, kinds=(kind,))
    url = f"s3://bucket/{KINDS.index(kind)}/object"
    write(url)
    store.write_bytes(f"{url}.small", b"small")
    assert (server.folder / "bucket" / str(KINDS.index(kind)) / "object").read_bytes() == DATA
    with store.open_read(url) as stream:
        assert stream.read() == DATA
    with store.open_read(url) as stream:
        assert stream.read(5) == DATA[:5]
    assert store.read_bytes(f"{url}.small") == b"small"
    assert store.read_range(url, 100, 50_000) == DATA[100:50_100]
    assert store.exists(url) and not store.exists(f"{url}.none") and store.is_folder(url[:-7])
    assert [file.size for file in store.list_files(f"s3://bucket/{KINDS.index(kind)}")] == [len(DATA), 5]
    store.delete([url, f"{url}.small"])
    assert store.list_files(f"s3://bucket/{KINDS.index(kind)}", "*") == []
    assert proxy.spoiled[kind] >= 8


def test_pages_of_a_listing_are_retried_one_by_one(behind):
    proxy = behind(every=10**9)
    for i in range(20):
        store.write_bytes(f"s3://bucket/pages/{i:02d}", b"x")
    proxy.every, proxy.kinds = 2, ("503",)
    call, bucket, _ = s3_client.locate("s3://bucket/pages")
    listed = s3.list_objects(functools.partial(call, MaxKeys=2), bucket, "pages/")
    assert [entry["Key"] for entry in listed] == [f"pages/{i:02d}" for i in range(20)]
    assert proxy.spoiled["503"] >= 9


def test_the_attempts_outlast_a_store_that_is_away_for_20_seconds():
    states = [tenacity.RetryCallState(None, None, (), {}) for _ in range(retries.attempts() - 1)]
    for number, state in enumerate(states, 1):
        state.attempt_number = number
    lengths = [sum(map(retries._choose_pause, states)) for _ in range(200)]
    assert 21 < min(lengths) < max(lengths) < 43 and max(lengths) - min(lengths) > 1


@pytest.mark.parametrize("kind", ["dropped mid-upload", "503"])
def test_an_upload_that_never_succeeds_shows_nothing(behind, server, monkeypatch, kind):
    monkeypatch.setenv(retries.ATTEMPTS_VARIABLE, "3")
    proxy = behind(every=1, kinds=(kind,), only=("PUT",))
    with pytest.raises(InfrastructureError, match=r"^s3://bucket/never/object: ") as caught:
        write("s3://bucket/never/object")
    assert "\n" not in str(caught.value)
    assert ("DELETE", "uploadId") in {(method, path.partition("?")[2][:8]) for method, path in proxy.requests}
    assert not [path for path in (server.folder / "bucket" / "never").rglob("*") if path.is_file()]
    assert store.list_files("s3://bucket/never") == []


@pytest.mark.parametrize(
    "work",
    [
        lambda url: store.read_bytes(url),
        lambda url: store.read_range(url, 0, 3),
        lambda url: store.write_bytes(url, b"data"),
        lambda url: write(url, b"data"),
        lambda url: store.info(url),
        lambda url: store.exists(url),
        lambda url: store.list_files(url),
        lambda url: store.delete([url]),
    ],
)
@pytest.mark.parametrize("kind", ["503", "truncated"])
def test_every_operation_makes_as_many_attempts_as_configured(behind, monkeypatch, work, kind):
    monkeypatch.setenv(retries.ATTEMPTS_VARIABLE, "3")
    url = f"s3://bucket/{random.getrandbits(60)}"
    proxy = behind(every=10**9)
    store.write_bytes(url, b"something")
    before, proxy.every, proxy.kinds = len(proxy.requests), 1, (kind,)
    if kind == "truncated" and not any(method == "GET" for method, _ in _requests(proxy, work, url)):
        return
    if kind == "503":
        with pytest.raises(InfrastructureError, match=url):
            work(url)
        assert len(proxy.requests) - before == 3
    else:
        proxy.requests.clear()
        with pytest.raises(InfrastructureError, match=url):
            work(url)
        assert len(proxy.requests) == 3


def _requests(proxy, work, url):
    """The requests of the work when nothing is spoiled."""
    every, proxy.every = proxy.every, 10**9
    before = len(proxy.requests)
    work(url)
    proxy.every = every
    return proxy.requests[before:]


def test_what_a_person_must_fix_is_not_retried(behind):
    proxy = behind(every=1, kinds=("403",))
    for work in (store.read_bytes, store.exists, store.list_files, lambda url: store.write_bytes(url, b"x")):
        before = len(proxy.requests)
        with pytest.raises(UserError, match=r"^s3://bucket/mine: "):
            work("s3://bucket/mine")
        assert len(proxy.requests) - before == 1


def test_the_name_of_an_object_does_not_decide_the_kind_of_error(behind, monkeypatch):
    """An object may be named like a user error."""
    monkeypatch.setenv(retries.ATTEMPTS_VARIABLE, "1")
    proxy = behind(every=1, kinds=("answer lost",))
    with pytest.raises(InfrastructureError):
        store.read_bytes("s3://bucket/403/credential-quota")
    assert proxy.spoiled["answer lost"]


def test_concurrent_requests_are_limited(behind, monkeypatch):
    monkeypatch.setenv(retries.REQUESTS_VARIABLE, "3")
    retries._request_slots.cache_clear()
    proxy = behind(every=1, kinds=("slow",), only=("GET",))
    store.write_bytes("s3://bucket/capped", b"0123456789")
    with ThreadPoolExecutor(12) as pool:
        got = list(pool.map(lambda i: store.read_range("s3://bucket/capped", i % 10, 1), range(12)))
    assert b"".join(got) == b"012345678901"
    assert proxy.most_concurrent == 3
    retries._request_slots.cache_clear()


def test_a_request_to_a_silent_server_times_out_and_is_retried(behind, monkeypatch):
    monkeypatch.setattr(s3fs.S3FileSystem, "read_timeout", 0.5)
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv(retries.ATTEMPTS_VARIABLE, "2")
    proxy = behind(every=1, kinds=("stalled",), only=("GET",))
    store.write_bytes("s3://bucket/stalled", b"x")
    with pytest.raises(InfrastructureError, match="imeout"):
        store.read_bytes("s3://bucket/stalled")
    assert proxy.spoiled["stalled"] == 2
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("value", ["0", "many", "-1"])
def test_a_wrong_number_in_the_environment_is_a_user_error(monkeypatch, value):
    monkeypatch.setenv(retries.ATTEMPTS_VARIABLE, value)
    with pytest.raises(UserError, match=f"{retries.ATTEMPTS_VARIABLE}='{value}'.*expected a whole number"):
        retries.attempts()


def test_an_upload_completed_by_an_attempt_whose_answer_was_lost(behind, server):
    """The second attempt finds the object and no upload."""
    proxy = behind(every=2, kinds=("answer lost",), only=("POST",))
    write("s3://bucket/completed")
    assert proxy.spoiled["answer lost"] >= 1
    assert [method for method, path in proxy.requests if path.startswith("/bucket/completed")].count(
        "HEAD"
    ) == 1
    assert (server.folder / "bucket" / "completed").read_bytes() == DATA


def test_an_object_of_too_many_parts_is_a_user_error(behind, monkeypatch):
    monkeypatch.setattr(s3, "MAX_PARTS", 3)
    behind(every=10**9)
    with pytest.raises(UserError, match=r"^s3://bucket/large: larger than 3 parts of 0\.0625 MiB"):
        write("s3://bucket/large")
    assert not store.exists("s3://bucket/large")
