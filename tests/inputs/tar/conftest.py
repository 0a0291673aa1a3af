"""The S3 server that the tests of the output packages share."""

from tests.output.conftest import s3, server

__all__ = ["s3", "server"]
