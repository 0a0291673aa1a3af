"""Atomic writes and deletions: under its final name an object is complete or absent.

`sync` of a write is when it must survive a power cut (`local_disk.Sync`); remote stores keep
whatever they have acknowledged.
"""

import contextlib
import io
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Any

from d2prune.store import local_disk, s3, s3_client
from d2prune.store.faults import one_line, translated, translated_write
from d2prune.store.filesystem import is_local, is_local_filesystem, open_filesystem
from d2prune.store.local_disk import Sync
from d2prune.store.retries import request, retrying
from d2prune.store.urls import S3_SCHEMES

# What stores answer to a conditional put of an object that exists.
_EXISTS = re.compile(r"precondition|conditional ?request ?conflict|\b412\b|already exists", re.IGNORECASE)


def write_bytes(url: str, data: bytes, sync: Sync = Sync.COMMIT) -> None:
    """Write an object."""
    filesystem, path = open_filesystem(url)
    if is_local_filesystem(filesystem) or (url.startswith(S3_SCHEMES) and len(data) > s3.PART):
        with writer(url, sync) as stream:
            stream.write(data)
    else:
        _put_bytes(url, filesystem, path, data)


@retrying
def _put_bytes(url: str, filesystem: Any, path: str, data: bytes) -> None:
    with request(url), translated_write(url):
        filesystem.pipe_file(path, data)


@retrying
def _put_file(url: str, filesystem: Any, source: str, path: str) -> None:
    with request(url), translated_write(url):
        filesystem.put_file(source, path)


@contextlib.contextmanager
def writer(url: str, sync: Sync = Sync.COMMIT) -> Iterator[IO[bytes]]:
    """A stream that becomes the object `url` if the block ends without an error.

    After an error nothing is left. Local: a temporary file beside the target, then a rename. S3:
    sent in parts as they fill. Elsewhere: a file in the local temporary folder, then one put, so
    that memory stays flat and a failed upload can start again.
    """
    if url.startswith(S3_SCHEMES):
        with _s3_writer(url) as upload:
            yield upload
        return
    filesystem, path = open_filesystem(url)
    local = is_local_filesystem(filesystem)
    with translated_write(url):
        folder = os.path.dirname(path) if local else tempfile.gettempdir()
        if local:
            local_disk.make_folders(folder or ".")
        temporary = local_disk.name_temporary(folder)
        stream = open(temporary, "wb", buffering=2**20)
    try:
        with translated(url), stream:
            yield stream
            if local and sync is not Sync.NEVER:
                local_disk.sync_file(stream)
        if local:
            with translated(url):
                local_disk.rename(temporary, path, sync)
        else:
            _put_file(url, filesystem, temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


@contextlib.contextmanager
def _s3_writer(url: str) -> Iterator[IO[bytes]]:
    call, bucket, key = s3_client.locate(url)

    def call_checked(operation: str, **parameters: Any) -> dict[str, Any]:
        # The first request of an upload is the one that finds out that there is no bucket.
        first = operation.startswith(("put", "create"))
        with translated_write(url) if first else contextlib.nullcontext():
            return call(operation, **parameters)

    upload = s3.Upload(call_checked, bucket, key)
    try:
        stream = io.BufferedWriter(upload, buffer_size=2**20)
        yield stream
        stream.flush()
        upload.commit()
    except BaseException:
        upload.abort()
        raise
    finally:
        upload.release()


@retrying
def create(url: str, data: bytes) -> bool:
    """Write an object unless it exists; return whether this call, or an attempt of it, wrote it.

    Not every store supports the condition on a put (rclone overwrites and reports success): call
    `supports_create` first. After a lost answer the next attempt finds the object of the first, so
    compare its content with `data`.
    """
    filesystem, path = open_filesystem(url)
    if is_local_filesystem(filesystem):
        with translated_write(url):
            return _create_local(path, data)
    with request(url), translated_write(url):
        try:
            filesystem.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except Exception as error:
            if _EXISTS.search(f"{one_line(error)} {one_line(error.__cause__ or error)}"):
                return False
            raise
    return True


def _create_local(path: str, data: bytes) -> bool:
    """Link a complete file to its name, so no reader sees half of it; without links use O_EXCL."""
    folder = os.path.dirname(path) or "."
    temporary = local_disk.name_temporary(folder)
    local_disk.make_folders(folder)
    try:
        _write_synced(temporary, "wb", data)
    except FileNotFoundError:
        # Another process removed the folder while it was empty.
        local_disk.make_folders(folder)
        _write_synced(temporary, "wb", data)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:
        try:
            _write_synced(path, "xb", data)
        except FileExistsError:
            return False
    finally:
        os.unlink(temporary)
    return True


def _write_synced(path: str, mode: str, data: bytes) -> None:
    with open(path, mode) as stream:
        stream.write(data)
        local_disk.sync_file(stream)


def supports_create(url: str) -> bool:
    """Whether `create` works in the store of `url`; tested by creating the object `url` twice."""
    if is_local(url):
        return True
    try:
        create(url, b"1")
        return not create(url, b"2")
    finally:
        delete([url])


def delete(urls: Sequence[str]) -> None:
    """Remove objects; those that no longer exist are ignored."""
    for url in urls:
        with contextlib.suppress(FileNotFoundError):
            _delete_object(url)


@retrying
def _delete_object(url: str) -> None:
    filesystem, path = open_filesystem(url)
    with request(url):
        filesystem.rm_file(path)


def remove_empty_folders(folder: str) -> None:
    """Remove a local folder and those in it, as far as they are empty; other stores have none."""
    if not is_local(folder):
        return
    for path, _, _ in os.walk(open_filesystem(folder)[1], topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(path)
