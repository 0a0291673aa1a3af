"""Anonymous access and requester pays, through fsspec's environment variables, in every kind of request."""

import fsspec.config
import pytest
import s3fs

from d2prune import store
from d2prune.demo import s3_server
from d2prune.inputs.shards import expand_input
from d2prune.store import s3_client
from tests.s3 import moto_server


@pytest.fixture(scope="module")
def server():
    with moto_server() as server, s3_server.environment(server):
        server.make_bucket("bucket")
        call, bucket, _ = s3_client.locate("s3://bucket/p")
        call("put_bucket_acl", Bucket=bucket, ACL="public-read")
        for number in range(3):
            store.write_bytes(f"s3://bucket/p/{number}.tar", b"12345678")
            call("put_object_acl", Bucket=bucket, Key=f"p/{number}.tar", ACL="public-read")
        yield server


@pytest.fixture
def requests(server, monkeypatch):
    """Sets a variable as a process would find it at its start; returns the parameters of all requests."""
    sent = []

    def use(**variables):
        settings = {f"FSSPEC_S3_{name}": value for name, value in variables.items()}
        monkeypatch.setattr(fsspec.config, "conf", conf := {})
        fsspec.config.set_conf_env(conf, settings)
        monkeypatch.setattr(
            "fsspec.spec.apply_config", lambda cls, kw: fsspec.config.apply_config(cls, kw, conf)
        )
        s3fs.S3FileSystem.clear_instance_cache()
        return sent

    original = s3fs.S3FileSystem._call_s3

    async def record(self, method, *dicts, **parameters):
        await self.set_session()
        client = await self.get_s3(parameters.get("Bucket"))
        whole = self._get_s3_method_kwargs(getattr(client, method), *dicts, **parameters)
        sent.append((method, whole, self.anon))
        return await original(self, method, *dicts, **parameters)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", record)
    yield use
    s3fs.S3FileSystem.clear_instance_cache()


def read_all():
    shards = expand_input("s3://bucket/p/*.tar") + expand_input("s3://bucket/p/{0..2}.tar")
    assert len(shards) == 6
    assert store.read_range(shards[0].url, 2, 3) == b"345"
    assert store.read_bytes(shards[0].url) == b"12345678"


@pytest.mark.parametrize("value", ["true", "1"])
def test_requester_pays_is_sent_with_every_request(requests, value):
    sent = requests(REQUESTER_PAYS=value)
    read_all()
    assert {method for method, _, _ in sent} >= {"list_objects_v2", "head_object", "get_object"}
    assert all(parameters.get("RequestPayer") == "requester" for _, parameters, _ in sent)


def test_anonymous_access_signs_no_request(requests, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    sent = requests(ANON="true")
    read_all()
    assert sent and all(anonymous for _, _, anonymous in sent)


@pytest.mark.parametrize("value", ["false", "0"])
def test_false_is_false(requests, value):
    sent = requests(ANON=value, REQUESTER_PAYS=value)
    read_all()
    assert not any(anonymous or "RequestPayer" in parameters for _, parameters, anonymous in sent)
