"""URLs as text: join names, remove credentials."""

import re

S3_SCHEMES = ("s3://", "s3a://")


def join(url: str, *names: str) -> str:
    """`url` and names, separated by single slashes."""
    return "/".join([url.rstrip("/"), *(name.strip("/") for name in names)])


def redact(url: str) -> str:
    """`url` without user name, password and query string, for logs, manifests and messages."""
    if "://" not in url:
        return url  # `?` is an ordinary character of a local path.
    return re.sub(r"//[^/@\s]*@", "//", url.split("?", 1)[0])
