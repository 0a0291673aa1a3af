"""Credentials out of text: the one redaction, for everything that leaves the program.

It is applied where text leaves for people: in every error of this project (`errors`), every log
record and every line on a terminal (`console`), every report page and answer of the explorer.
Requests to storage use the URLs as given, and records that are read back keep names unchanged
(`store.encode_record`).

What counts as a credential: the user part of a URL, parameters of a query that sign or identify,
headers and settings with well-known names, and the values of secret environment variables. A
credential may contain `/`, `+` and `=` (half of all AWS secrets contain a `/`), and any part of a
URL may be percent-encoded, also twice. Where the end of a credential cannot be known, the rest of
the URL is dropped.
"""

import dataclasses
import functools
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import quote, unquote

MASK = "***"

_AT = re.compile(r"@|%(?:25)*40")
_COLON = re.compile(r":|%(?:25)*3A", re.IGNORECASE)
# Searched from the colon, then backwards for the scheme: a pattern that begins with the scheme takes
# quadratic time on a caption of one long word. One slash, since pathlib joins two.
_AFTER_SCHEME = re.compile(r":/+|%(?:25)*3A(?:%(?:25)*2F){2,}", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]{0,30}$")
_ONE_SLASH = re.compile(
    r"(s3[an]?|gc?s|https?|abfss?|wasbs?|az|adl|s?ftp|ssh|scp|hdfs|hf|oci|webdavs?)$", re.IGNORECASE
)
# What stands between `://` and a name that belongs to the same URL: nothing, or a container.
_INSIDE = re.compile(r"(?:[\w.+\-]{0,64}@)?")
# The name before the colon or the @ names a location here (a container, an account on a machine).
_ACCOUNTS = frozenset("abfs abfss wasb wasbs az adl".split())
_NAMED_PLACES = _ACCOUNTS | frozenset("sftp ssh scp ftp hdfs".split())
_ACCOUNT_KEY = re.compile(r"^([^/:%\s<>\"?#]*)(?::|%(?:25)*3A)(?!\*\*\*)[^\s<>\"]+", re.IGNORECASE)
_BUCKETS = frozenset({"s3", "s3a", "s3n", "gs", "gcs"})
_WITH_PASSWORDS = _BUCKETS | {"http", "https"}
_CUT_PASSWORD = re.compile(r"(?=[A-Za-z0-9+/=%])[^\s<>\"]+")
_TOKEN = re.compile(r"[^\s<>\"]*")
_AUTHORITY = re.compile(r"(?:\[[0-9A-Fa-f:.]*\])?[^/\s<>\"?#]*")
_PORT = re.compile(r":\d{1,5}$")
_KEY_ID = re.compile(r"[A-Z0-9]{16,}$")

_SEPARATOR = r"(?:[?&#;]|%(?:25)*(?:3F|26|23|3B))"
_NAME = r"(?:[\w.\-\[\]]|%(?:25)*(?:2D|5F|2E))"
_PARAMETER = re.compile(
    rf"(?P<separator>{_SEPARATOR})(?P<name>{_NAME}{{1,64}})(?:=|%(?:25)*3D)(?P<value>[^&#\s<>\"]*)",
    re.IGNORECASE,
)
_BARE_QUERY = re.compile(r"\?[A-Za-z0-9+/=_%.~\-]{20,}$")
_SECRET_NAME = re.compile(
    r"sig(nature)?$|token|secret|passw|pwd|credential|auth|jwt|^key$|[-_]key$"
    r"|api-?key|access-?key|account-?key"
    r"|googleaccessid|key-?pair-?id|^policy$|session|^(x-amz|x-goog|x-oss|x-cos)-",
    re.IGNORECASE,
)
# Parts of a signature that change with it, dropped beside one.
_BESIDE_SIGNATURES = frozenset(
    "expires sv ss srt sp se st spr sr sip sdd skoid sktid skt ske sks skv".split()
)
_VERSIONS = frozenset({"versionid", "generation", "snapshot", "uploadid"})
_LONG_RANDOM = re.compile(r"(?=[^&]*\d)(?=[^&]*[A-Za-z])[A-Za-z0-9+/=_%.~\-]{24,}$")
# Punctuation after a URL in prose, in a list and in braces.
_CLOSING = ",'})].;:"

_ASSIGNED = re.compile(
    r"(?P<name>\b(?:x-amz-(?:signature|credential|security-token)"
    r"|x-goog-(?:signature|credential)|awsaccesskeyid"
    r"|(?:aws_)?secret_?access_?key|(?:aws_)?session_?token|security_?token|accountkey"
    r"|sharedaccess(?:key|signature)"
    r"|signatureprovided|googleaccessid|client_?secret|secret_?key)(?:['\"]?\s*(?:[=:>]|%3D)\s*['\"]?)"
    r"|\b(?:sig|signature|credential|secret|password)(?:['\"]?=['\"]?|['\"]:\s*['\"]))[^\s'\"<>&,;]{4,}",
    re.IGNORECASE,
)
_AUTHORIZATION = re.compile(
    r"(?P<name>\bauthorization['\"]?\s*[:=]\s*['\"]?)(?:[A-Za-z0-9\-]+ +)?[^\s'\"<>,;]+",
    re.IGNORECASE,
)
# One of them is in every text that the two patterns above change; searching for words is quicker.
_WORDS = "signature credential secret token access accountkey sig= password authorization".split()

_SECRET_VARIABLE = re.compile(
    r"(?!.*(FILE|PATH|DIR|UR[IL]|EXPIRATION|APPLICATION_CREDENTIALS)$)"
    r"(?:FSSPEC_|(?=.*(SECRET|TOKEN|PASSW|_KEY$|_SAS|CONNECTION_STRING|CREDENTIAL))"
    r"(AWS|AZURE|GOOGLE|GCS|GCP|HF|HUGGING|S3|R2|B2|OSS|WASABI|MINIO|RCLONE))\w*$"
)
_SHORTEST_SECRET = 8


def redact(url: str) -> str:
    """`url` without credentials: no user and password, no signature or token in its query.

    A URL without credentials is returned unchanged, and so is a local path. Two places that differ
    in more than their credentials stay different.
    """
    found = list(_find_urls(url))
    if not found:
        return url
    parts = [url[: found[0][0]]]
    ends = [start for start, _, _ in found[1:]] + [len(url)]
    for (start, scheme, body), end in zip(found, ends, strict=True):
        if "%" in url[start:body]:
            parts.append(_redact_encoded(url[start:end]))
        else:
            parts.append(url[start:body] + _redact_query(_redact_authority(scheme, url[body:end])))
    return "".join(parts)


def redact_text(text: str) -> str:
    """Any text without credentials; a text without any is returned unchanged."""
    secrets = _secrets_read.get()
    for secret, name in _read_secrets() if secrets is None else secrets:
        if secret in text:
            text = text.replace(secret, f"({name})")
    text = redact(text)
    lower = text.lower()
    if any(word in lower for word in _WORDS):
        text = _ASSIGNED.sub(rf"\g<name>{MASK}", text)
        text = _AUTHORIZATION.sub(rf"\g<name>{MASK}", text)
    return text


def encode_json(value: Any, **options: Any) -> bytes:
    """JSON without credentials, for answers that people read.

    Args:
        value: nested mappings, sequences and scalars, or a dataclass of them.
        **options: of `json.dumps`.
    """
    text = json.dumps(value, default=as_mapping, **options)
    # Searched as one text: visiting the values takes ten times as long.
    if redact_text(text) != text:
        text = json.dumps(_redact_values(value), **options)
    return text.encode()


def as_mapping(value: Any) -> Any:
    """The `default` of `json.dumps` for dataclasses and for mappings that are no dicts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # `dataclasses.asdict` would copy every value.
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def redact_markup(value: Any) -> Any:
    """`redact_text` for a value in a template; markup, which is a string too, was made from such values."""
    return redact_text(value) if type(value) is str else value


def _redact_values(value: Any) -> Any:
    """`redact_text` for every string, keys included."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, (int, float)) or value is None:
        return value
    if isinstance(value, Mapping):
        return {_redact_values(name): _redact_values(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redact_values(inner) for inner in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _redact_values(dataclasses.asdict(value))
    return value


def _find_urls(text: str) -> list[tuple[int, str, int]]:
    """Each URL's start, its scheme in lower case, and where what follows the scheme begins."""
    found: list[tuple[int, str, int]] = []
    end = -1
    for match in _AFTER_SCHEME.finditer(text):
        scheme = _SCHEME.search(text, max(0, match.start() - 32), match.start())
        if scheme is None:
            continue
        # `s3://KEY://...@bucket` is one URL: the secret begins with slashes. Percent-encoded, the F of
        # the last %2F looks like a part of the name after it.
        is_inside = end >= 0 and _INSIDE.fullmatch(text, end, max(end, scheme.start())) is not None
        if match.group() == ":/":
            scheme = _ONE_SLASH.search(text, scheme.start(), match.start())
        if scheme is not None:
            if not is_inside:
                found.append((scheme.start(), scheme.group().lower(), match.end()))
            end = match.end()
    return found


def _redact_encoded(text: str) -> str:
    """A URL whose `://` is percent-encoded: decoded if it holds credentials, else unchanged."""
    token = _TOKEN.match(text)
    assert token is not None  # It matches the empty string, too.
    decoded = token.group()
    while _AFTER_SCHEME.search(decoded) and not re.search(r"[A-Za-z0-9]:/", decoded):
        decoded = unquote(decoded)
    # Decoded slashes look like the end of a port number, so whatever stands before an @ is dropped.
    redacted = redact(re.sub(r"(:/+)[^@]*:[^@]*@", r"\1", decoded))
    return (token.group() if redacted == decoded else redacted) + text[token.end() :]


def _redact_authority(scheme: str, body: str) -> str:
    """Drop user and password from what follows `scheme://`."""
    authority = _AUTHORITY.match(body)
    assert authority is not None
    head = authority.group()
    end = 0
    if at := list(_AT.finditer(head)):
        end = at[-1].end()
    elif (colon := _COLON.search(head)) and not _is_host(
        scheme, head if body[len(head) :].startswith("/") else head.rstrip(_CLOSING), colon.start()
    ):
        # The user part continues beyond a slash.
        token = _TOKEN.match(body)
        at_sign = _AT.search(token.group()) if token else None
        if at_sign is None and (cut := _CUT_PASSWORD.match(body, colon.end())) and scheme in _WITH_PASSWORDS:
            # Cut off before its @, as by `--set KEY=VALUE` at an `=` in the secret.
            return body[: colon.end()] + MASK + body[cut.end() :]
        end = at_sign.end() if at_sign else 0
    user, rest = body[:end], body[end:]
    if scheme in _ACCOUNTS:
        # `account:KEY/...`: a key may contain slashes, so nothing after the colon is certain to be a path.
        rest = _ACCOUNT_KEY.sub(rf"\1:{MASK}", rest)
    if user and scheme in _NAMED_PLACES:
        name = _COLON.split(_AT.sub("@", user).rstrip("@"), maxsplit=1)[0]
        return f"{name}@{rest}"
    return rest


def _is_host(scheme: str, head: str, colon: int) -> bool:
    """Whether a part with a colon is a host with its port, or another name, and not `user:password`."""
    if head.startswith("["):
        return True
    if scheme in _BUCKETS:
        return head.startswith("arn:")
    return _PORT.fullmatch(head, colon) is not None and not _KEY_ID.fullmatch(head[:colon])


def _redact_query(body: str) -> str:
    """Drop the parameters that sign or identify; the others stay, in their order."""
    parameters = list(_PARAMETER.finditer(body))
    secret = [match for match in parameters if _is_secret(match)]
    if secret:
        kept, position, opened = [], 0, False
        for match in parameters:
            name = unquote(match["name"]).lower()
            if match not in secret and name not in _BESIDE_SIGNATURES:
                if match["separator"] == "&" and not opened:
                    # The parameter that began the query is gone.
                    kept.append(body[position : match.start()] + "?")
                    position = match.start() + 1
                opened = True
                continue
            value = match["value"]
            tail = value[len(value.rstrip(_CLOSING)) :]
            kept.append(body[position : match.start()] + tail)
            position = match.end()
        body = "".join(kept) + body[position:]
    head, query, rest = body.partition("?")
    token = _TOKEN.match(query + rest)
    if token and _BARE_QUERY.fullmatch(token.group()) and "=" not in token.group().rstrip("="):
        body = head + (query + rest)[token.end() :]
    return body


def _is_secret(parameter: re.Match[str]) -> bool:
    name, value = unquote(unquote(parameter["name"])).lower(), parameter["value"]
    if not value:
        return False
    if _SECRET_NAME.search(name):
        return True
    return name not in _VERSIONS and _LONG_RANDOM.fullmatch(value.rstrip(_CLOSING)) is not None


_secrets_read: ContextVar[tuple[tuple[str, str], ...] | None] = ContextVar("secrets_read", default=None)


@contextmanager
def secrets_read_once() -> Iterator[None]:
    """Within the block, secrets of the environment are read once.

    Reading them takes 0.2 ms, and a page has thousands of texts.
    """
    token = _secrets_read.set(_read_secrets())
    try:
        yield
    finally:
        _secrets_read.reset(token)


def _read_secrets() -> tuple[tuple[str, str], ...]:
    """The secrets of the environment with the names of their variables, longest first."""
    return _list_spellings(
        tuple((name, os.environ[name]) for name in os.environ if _is_secret_variable(name))
    )


@functools.lru_cache(maxsize=1024)
def _is_secret_variable(name: str) -> bool:
    return _SECRET_VARIABLE.match(name) is not None


@functools.lru_cache(maxsize=8)
def _list_spellings(variables: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Every spelling of each value: unchanged, percent-encoded, and as in JSON."""
    spellings: dict[str, str] = {}
    for name, value in variables:
        for secret in _split_settings(value):
            if len(secret) >= _SHORTEST_SECRET:
                for text in (secret, quote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1]):
                    spellings.setdefault(text, name)
    return tuple(sorted(spellings.items(), key=lambda item: (-len(item[0]), item[0])))


def _split_settings(value: str) -> list[str]:
    """The secrets in a variable: those of fsspec's options in JSON, of Azure's string, or the value."""
    try:
        options = json.loads(value)
    except (ValueError, RecursionError):
        inner = re.findall(r"(?:AccountKey|SharedAccessSignature|SharedAccessKey)=([^;]+)", value)
        return [value, *inner]
    return _find_secret_options(options) if isinstance(options, dict) else [value]


def _find_secret_options(options: dict[str, Any]) -> list[str]:
    found = [inner for name, inner in options.items() if isinstance(inner, str) and _SECRET_NAME.search(name)]
    for inner in options.values():
        found += _find_secret_options(inner) if isinstance(inner, dict) else []
    return found
