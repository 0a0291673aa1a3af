"""Credentials never leave; whatever holds none stays as it is."""

import json
from urllib.parse import quote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from d2prune.redaction import encode_json, redact, redact_markup, redact_text

AWS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/+="
# Half of all AWS secrets have a slash; a slash at the beginning looks like the end of a scheme.
SECRETS = st.builds(
    str.__add__, st.sampled_from(["", "/", "//", "///"]), st.text(AWS, min_size=20, max_size=60)
)

FORMS = [
    "s3://AKIAIOSFODNN7EXAMPLE:{}@bucket/folder/x.tar",
    "s3://KEY:{}@bucket",
    "s3a://k:{}@bucket/a@b:c/{{00000..00012}}.tar",
    "gs://KEY:{}@bucket/x",
    "s3://KEY://{}@bucket/x",
    "https://https://user:{}@host/x",
    "s3:/KEY:{}@bucket/x",
    "https://user:{quoted}@host:8080/x.tar",
    "https://{quoted}@host/x.tar",
    "abfs://container@account:{}/folder",
    "abfss://container:{}@account.dfs.core.windows.net/x",
    "sftp://user:{quoted}@host/x",
    "https://h/x.tar?sig={}",
    "https://h/x.tar?a=1&sig={quoted}&b=2",
    "https://a.blob.core.windows.net/c/x?sv=2022-11-02&se=2030-01-01&sr=b&sp=r&sig={quoted}",
    "https://b.s3.amazonaws.com/x?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={quoted}%2Fs3&X-Amz-Signature=0",
    "https://b.s3.amazonaws.com/x?X-Amz-Signature={}&X-Amz-Security-Token={}",
    "https://h/x?AWSAccessKeyId={}&Signature={}&Expires=1",
    "https://storage.googleapis.com/b/x?GoogleAccessId={}&Expires=1&Signature={quoted}",
    "https://h/x?token={}#access_token={}",
    "https://h/x?key={}",
    "https://h/x?X%2DAmz%2DSignature={}",
    "https://h/x%3Fsig%3D{quoted}",
    "s3://b/{{a,b}}?token={}",
    "simplecache::s3://KEY:{}@bucket/x",
    "zip://a.tar::https://h/x.zip?sig={}",
    "s3://KEY:{}@b/1.tar::s3://KEY2:{}@c/2.tar::https://h/x?sig={}",
    "{{s3://KEY:{}@b/1,s3://KEY:{}@b/2}}.tar",
    "s3%3A%2F%2FKEY%3A{quoted}%40bucket%2Fx",
    "https%253A%252F%252Fu%253A{quoted}%2540host",
    "https://h/redirect?to=https%3A%2F%2Fu%3A{quoted}%40host%2Fx",
    "s3://KEY%3A{quoted}%40bucket/x",
    "Authorization: Bearer {}",
    "{{'Authorization': 'AWS4-HMAC-SHA256 Credential=AK/2030/s3, SignedHeaders=host, Signature={}'}}",
    "<Error><AWSAccessKeyId>{}</AWSAccessKeyId></Error>",
    "X-Amz-Security-Token: {}",
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey={};EndpointSuffix=core.windows.net",
    "S3FileSystem(key='AK', secret='{}')",
]
FRAMES = [
    "{}",
    "found '{}'; expected a folder",
    '  1: input: "{}"\n          ^',
    "--set input={}: no",
    "[{}, x]",
]


def shows(text, secret):
    """Whether any nine characters in a row of the secret are in the text."""
    return any(secret[i : i + 9] in text for i in range(len(secret) - 8))


@settings(max_examples=400, deadline=None)
@given(SECRETS, st.sampled_from(FORMS), st.sampled_from(FRAMES))
def test_secrets_of_any_form_are_removed(secret, form, frame):
    # A port is no password: http://host:80/a@b holds none.
    assume(not form.startswith("http") or not secret[:5].isdigit())
    quoted = quote(secret, safe="")
    given_text = frame.format(form.format(secret, secret, secret, quoted=quoted))
    shown = redact_text(given_text)
    assert not shows(shown, secret) and not shows(shown, quoted)
    assert redact_text(shown) == shown
    if "://" in form:
        assert not shows(redact(given_text), secret) and not shows(redact(given_text), quoted)


PLACES = [
    "s3://bucket/",
    "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/name/",
    "gs://b.c/",
    "/data/",
    "file:///data/",
    "C:\\pool\\",
    "C:/pool/",
    "https://host/",
    "https://host:8080/",
    "http://[::1]:9000/b/",
    "abfs://container@account.dfs.core.windows.net/",
    "hdfs://name@node:8020/",
    "hf://a/b@main/",
]
NAME = st.text("abcXYZ012 @:?*[]{},.=+-_%&#~!$'()é名", min_size=1, max_size=12)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(PLACES),
    st.lists(NAME, max_size=4),
)
def test_places_without_secrets_stay(place, names):
    path = "/".join(names)
    # `?key=...` and `#token=...` would be credentials.
    assume("=" not in path or not any(mark in path for mark in "?&#"))
    url = place + path
    assert redact(url) == url == redact_text(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://key:secret@bucket/x?token=1", "s3://bucket/x"),
        ("s3://key:se/cr+et=@bucket/a@b.tar", "s3://bucket/a@b.tar"),
        ("s3://bucket/run-?/0000?.tar", "s3://bucket/run-?/0000?.tar"),
        ("https://h/get?id=1&sig=abc&part=2", "https://h/get?id=1&part=2"),
        ("https://h/get?sig=abc&id=1", "https://h/get?id=1"),
        (
            "https://h/x?list-type=2&versionId=3sL4kqtJlcpXroDTDmJ",
            "https://h/x?list-type=2&versionId=3sL4kqtJlcpXroDTDmJ",
        ),
        ("abfs://c1@account/x", "abfs://c1@account/x"),
        ("unknown key s3://KEY:cut/off; expected", "unknown key s3://KEY:*** expected"),
        ("https://user:cut: s3://bucket: not found", "https://user:*** s3://bucket: not found"),
        ("abfs://c@account:KEY/x", "abfs://c@account:***"),
        (
            "found http://host:8265, not (http://host:9000).",
            "found http://host:8265, not (http://host:9000).",
        ),
        ("http://key:8265,se/cr+et=", "http://key:***"),
    ],
)
def test_what_is_shown(url, shown):
    assert redact(url) == shown


def test_secrets_of_the_environment_are_named(monkeypatch):
    secret, token = "wJalr/XUtnFEMI+K7MDENG=", 'pa"ss\\word-1234'
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountName=a;AccountKey=c2VjcmV0c2VjcmV0;X=1")
    monkeypatch.setenv("FSSPEC_S3", json.dumps({"client_kwargs": {"secret": "nested-secret"}, "anon": False}))
    monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/secrets/token")
    text = f"{secret} {quote(secret, safe='')} c2VjcmV0c2VjcmV0 nested-secret {token} {json.dumps(token)}"
    assert redact_text(text) == (
        "(AWS_SECRET_ACCESS_KEY) (AWS_SECRET_ACCESS_KEY) (AZURE_STORAGE_CONNECTION_STRING) (FSSPEC_S3) "
        '(AWS_SESSION_TOKEN) "(AWS_SESSION_TOKEN)"'
    )
    assert redact_text("/var/run/secrets/token") == "/var/run/secrets/token"


def test_records_are_redacted_at_every_depth():
    record = {"a": ["https://u:p@h/x", {"https://u:p@h": (1, None, True, 0.5)}], "b": "plain"}
    assert json.loads(encode_json(record)) == {
        "a": ["https://h/x", {"https://h": [1, None, True, 0.5]}],
        "b": "plain",
    }


def test_templates_keep_markup_and_other_values():
    assert redact_markup("https://u:p@h/") == "https://h/" and redact_markup(3) == 3


@pytest.mark.parametrize(
    "unit", ["a", ":", "@", "/", "://", "%3A", "?a=", "sig=,", "%25", "a:/", " authorization: "]
)
def test_hostile_text_takes_linear_time(unit):
    """A minute, if any pattern were quadratic."""
    redact_text(unit * (200_000 // len(unit)))
    redact_text("https://h/?sig=" + unit * (200_000 // len(unit)))
