"""A real S3 server (rclone on loopback) for the tests of output, write and reshard."""

import pytest
import s3fs

from d2prune.demo import s3_server


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with s3_server.serve(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def s3(server):
    """The server, with the environment of this process pointing at it during a test."""
    with s3_server.environment(server):
        s3fs.S3FileSystem.clear_instance_cache()
        yield server
    s3fs.S3FileSystem.clear_instance_cache()
