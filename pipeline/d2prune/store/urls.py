"""URLs as text: join names."""

S3_SCHEMES = ("s3://", "s3a://")


def join(url: str, *names: str) -> str:
    """`url` and names, separated by single slashes."""
    return "/".join([url.rstrip("/"), *(name.strip("/") for name in names)])
