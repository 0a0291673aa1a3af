"""The one door to files, local or remote: every path is a URL that fsspec opens.

Reads stream or fetch ranges. Writes are atomic: a reader sees the whole object under its final name
or nothing, whatever is killed. Errors come out as three kinds: `FileNotFoundError`, `UserError`
(credentials, permissions, no such
bucket: a person must act) and `InfrastructureError` (tried again and again, in vain). What is
retried, and how many requests are under way at once, is the business of `d2prune.store.retries`. No
other module imports fsspec.
"""

import contextlib
import functools
import hashlib
import io
import logging
import mmap
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import fsspec
import fsspec.utils
from fsspec.implementations.local import LocalFileSystem

from d2prune.errors import InfrastructureError, UserError
from d2prune.store import read_ahead, retries, s3
from d2prune.store.retries import one_line as _one_line
from d2prune.store.retries import redact as redact
from d2prune.store.retries import request as _request
from d2prune.store.retries import retrying as _retrying
from d2prune.store.retries import translated as _translated

log = logging.getLogger(__name__)

_TEMPORARY = ".tmp-d2prune-"
_TAKEN = re.compile(r"precondition|conditional ?request ?conflict|\b412\b|already exists", re.IGNORECASE)
_S3 = ("s3://", "s3a://")
_NO_PASSWORDS = re.compile(r"^(s3a?|gs|gcs)://[^/]*@")


@dataclass(frozen=True)
class FileInfo:
    """What a listing tells of one object.

    `version` changes when the content may have: the store's ETag, else size and modification time.
    """

    url: str
    size: int
    version: str


def join(url: str, *names: str) -> str:
    """`url` and names, with single slashes between."""
    return "/".join([url.rstrip("/"), *(name.strip("/") for name in names)])


def is_local(url: str) -> bool:
    """Whether `url` names a file of this machine."""
    return isinstance(_filesystem(url)[0], LocalFileSystem)


def _filesystem(url: str) -> tuple[Any, str]:
    if _NO_PASSWORDS.match(url):
        raise UserError(
            f"{redact(url)}: credentials in a URL are not taken; expected them where the store's own tools look "
            "(AWS_* in the environment, a profile, an instance role)"
        )
    try:
        filesystem, path = fsspec.core.url_to_fs(url, **_options(url))
    except ImportError as error:
        raise UserError(f"{redact(url)}: this kind of URL needs another package: {error}") from error
    except ValueError as error:
        raise UserError(f"{redact(url)}: not a URL that can be opened: {error}") from error
    if hasattr(filesystem, "retries"):
        filesystem.retries = 1
    return filesystem, str(path)


def _options(url: str) -> dict[str, Any]:
    """How a filesystem is opened: without caches of what lies there, and without retries of its own beside ours."""
    options: dict[str, Any] = {"use_listings_cache": False}
    if url.startswith(_S3):
        # Named here although s3fs reads it too: fsspec keeps one instance per set of options, and a
        # process that turns to another endpoint must not be given the connection to the old one.
        options["endpoint_url"] = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        options["config_kwargs"] = {
            "retries": {"mode": "standard", "total_max_attempts": 1},
            "max_pool_connections": retries.requests(),
        }
        # Objects are read and written a request at a time here, each with retries of its own.
        options["max_concurrency"] = 1
    return options


@contextlib.contextmanager
def _writing(url: str) -> Iterator[None]:
    """Where what is being written is not found, there is no such bucket (or, locally, no folder can be made)."""
    try:
        yield
    except FileNotFoundError as error:
        missing = "its folder cannot be made" if url.startswith("/") else "its bucket does not exist"
        raise UserError(f"{redact(url)}: cannot be written, {missing}: {_one_line(error)}") from error


@_retrying
def _s3_call(url: str, operation: str, **parameters: Any) -> dict[str, Any]:
    """One request of S3's own, on behalf of `url`."""
    filesystem, _ = _filesystem(url)
    with _request(url):
        return dict(filesystem.call_s3(operation, **parameters))


def _s3_place(url: str) -> tuple[s3.Call, str, str]:
    """What `d2prune.store.s3` needs to work on `url`: requests, bucket, key."""
    filesystem, path = _filesystem(url)
    bucket, key, _ = filesystem.split_path(path)
    return functools.partial(_s3_call, url), bucket, key


@_retrying
def _entry(url: str) -> dict[str, Any]:
    filesystem, path = _filesystem(url)
    with _request(url):
        return dict(filesystem.info(path))


def info(url: str) -> FileInfo:
    """Size and version of one object.

    Raises:
        FileNotFoundError: there is none.
    """
    return _file_info(_filesystem(url)[0], _entry(url))


# Not by fsspec's isfile and isdir, which take any failure for a no.
def exists(url: str) -> bool:
    """Whether an object (not a folder) has this name."""
    return _type(url) == "file"


def is_folder(url: str) -> bool:
    """Whether `url` is a folder or a prefix with something below it."""
    return _type(url) == "directory"


def _type(url: str) -> str | None:
    try:
        return str(_entry(url)["type"])
    except FileNotFoundError:
        return None


def list_files(url: str) -> list[FileInfo]:
    """Every object below a folder, or matching a glob, sorted by URL; temporaries of interrupted writes are left out.

    Returns:
        The objects; empty where the folder does not exist.
    """
    try:
        files = _list_s3(url) if url.startswith(_S3) else _list_any(url)
    except FileNotFoundError:
        return []
    return sorted((file for file in files if _TEMPORARY not in file.url), key=lambda file: file.url)


@_retrying
def _list_any(url: str) -> list[FileInfo]:
    filesystem, path = _filesystem(url)
    with _request(url):
        found = filesystem.glob(path, detail=True) if _is_glob(url) else filesystem.find(path, detail=True)
        return [_file_info(filesystem, entry) for entry in found.values() if entry["type"] == "file"]


def _list_s3(url: str) -> list[FileInfo]:
    """As `_list_any`, but a page that fails does not start the listing over."""
    call, bucket, key = _s3_place(url)
    pattern = re.compile(fsspec.utils.glob_translate(f"{bucket}/{key}")) if _is_glob(url) else None
    prefix = re.split(r"[*?]", key, maxsplit=1)[0] if pattern is not None else key and f"{key.rstrip('/')}/"
    return [
        FileInfo(f"s3://{bucket}/{entry['Key']}", int(entry["Size"]), str(entry.get("ETag", "")).strip('"'))
        for entry in s3.list_objects(call, bucket, prefix)
        if not entry["Key"].endswith("/") and (pattern is None or pattern.match(f"{bucket}/{entry['Key']}"))
    ]


def _is_glob(url: str) -> bool:
    return "*" in url or "?" in url


def _file_info(filesystem: Any, entry: dict[str, Any]) -> FileInfo:
    size = int(entry.get("size") or 0)
    version = str(entry.get("ETag") or entry.get("etag") or "").strip('"')
    if not version:
        stamp = entry.get("mtime") or entry.get("LastModified") or entry.get("created") or ""
        version = f"{size}-{stamp}"
    name = entry["name"]
    if isinstance(filesystem, LocalFileSystem):
        version = f"{size}-{os.stat(name).st_mtime_ns}"
    else:
        name = filesystem.unstrip_protocol(name)
    return FileInfo(url=name, size=size, version=version)


@_retrying
def read_bytes(url: str) -> bytes:
    """The whole object."""
    filesystem, path = _filesystem(url)
    with _request(url):
        return bytes(filesystem.cat_file(path))


@_retrying
def read_range(url: str, offset: int, size: int) -> bytes:
    """`size` bytes from `offset`.

    Raises:
        InfrastructureError: the object is shorter, so it is not the one that was listed.
    """
    filesystem, path = _filesystem(url)
    with _request(url):
        data = bytes(filesystem.cat_file(path, start=offset, end=offset + size))
    if len(data) != size:
        raise InfrastructureError(f"{redact(url)}: {size} bytes at {offset} expected, {len(data)} came")
    return data


@contextlib.contextmanager
def ranged_reader(url: str) -> Iterator[Callable[[int, int], bytes]]:
    """`read(offset, size)` as `read_range`, for many reads of one object: a local file is opened once.

    Raises:
        FileNotFoundError: a local file does not exist; a remote object raises it at the first read.
        InfrastructureError: from `read`, as `read_range`.
    """
    filesystem, path = _filesystem(url)
    if not isinstance(filesystem, LocalFileSystem):
        yield functools.partial(read_range, url)
        return
    with _translated(url):
        handle = os.open(path, os.O_RDONLY)

    def read(offset: int, size: int) -> bytes:
        with _translated(url):
            data = os.pread(handle, size, offset)
        while len(data) < size:
            # Linux moves at most 2 GiB a call.
            with _translated(url):
                more = os.pread(handle, size - len(data), offset + len(data))
            if not more:
                raise InfrastructureError(
                    f"{redact(url)}: {size} bytes at {offset} expected, {len(data)} came"
                )
            data += more
        return data

    try:
        yield read
    finally:
        os.close(handle)


@contextlib.contextmanager
def local_reader(url: str) -> Iterator[Callable[[int, memoryview], None]]:
    """`fill(offset, memory)`: the bytes of a local file from `offset` on, straight into memory that is there already.

    Raises:
        FileNotFoundError: it does not exist.
        InfrastructureError: from `fill`, where the file ends before the memory does.
    """
    with _translated(url):
        handle = os.open(_filesystem(url)[1], os.O_RDONLY)

    def fill(offset: int, memory: memoryview) -> None:
        done = 0
        # Once but for a signal in between, or more than 2 GiB.
        while done < len(memory):
            with _translated(url):
                count = os.preadv(handle, [memory[done:]], offset + done)
            if not count:
                raise InfrastructureError(
                    f"{redact(url)}: {len(memory)} bytes at {offset} expected, {done} came"
                )
            done += count

    try:
        yield fill
    finally:
        os.close(handle)


@contextlib.contextmanager
def mapped_or_stream(url: str) -> Iterator[memoryview | IO[bytes]]:
    """A local file as a view of its mapped bytes, which costs only the pages that are looked at; else `open_read`.

    Raises:
        FileNotFoundError: there is none.
    """
    filesystem, path = _filesystem(url)
    if not isinstance(filesystem, LocalFileSystem):
        with open_read(url) as stream:
            yield stream
        return
    with _translated(url), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        # An empty file cannot be mapped.
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else None
    if mapping is None:
        yield memoryview(b"")
        return
    # Not closed: views of it may live on, and the map goes with the last of them.
    yield memoryview(mapping)


def open_read(url: str, ahead: int = read_ahead.AHEAD) -> IO[bytes]:
    """A buffered, sequential binary stream; of a remote object at most `ahead` + 2 blocks of 8 MiB are in memory."""
    filesystem, path = _filesystem(url)
    if isinstance(filesystem, LocalFileSystem):
        with _translated(url):
            return open(path, "rb", buffering=2**20)
    stream = read_ahead.ReadAhead(functools.partial(read_range, url), info(url).size, read_ahead.BLOCK, ahead)
    return io.BufferedReader(stream, buffer_size=2**20)


def write_bytes(url: str, data: bytes) -> None:
    """Write an object whole, atomically."""
    filesystem, path = _filesystem(url)
    if isinstance(filesystem, LocalFileSystem) or (url.startswith(_S3) and len(data) > s3.PART):
        with writer(url) as stream:
            stream.write(data)
    else:
        _put_bytes(url, filesystem, path, data)


@_retrying
def _put_bytes(url: str, filesystem: Any, path: str, data: bytes) -> None:
    with _request(url), _writing(url):
        filesystem.pipe_file(path, data)


@_retrying
def _put_file(url: str, filesystem: Any, source: str, path: str) -> None:
    with _request(url), _writing(url):
        filesystem.put_file(source, path)


@_retrying
def create(url: str, data: bytes) -> bool:
    """Write an object only where there is none; whether this call (or a try of it) made it.

    Not every store honours the condition on a put (rclone overwrites and says yes): ask
    `honours_create` first. After a lost answer a second try finds the object of the first: compare
    its bytes with `data`.
    """
    filesystem, path = _filesystem(url)
    if isinstance(filesystem, LocalFileSystem):
        with _writing(url), _translated(url):
            return _create_local(path, data)
    with _request(url), _writing(url):
        try:
            filesystem.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except Exception as error:
            if _TAKEN.search(f"{_one_line(error)} {_one_line(error.__cause__ or error)}"):
                return False
            raise
    return True


def _create_local(path: str, data: bytes) -> bool:
    """By a link to a whole file, so that no reader sees half of it; where a filesystem has no links, by O_EXCL."""
    folder = os.path.dirname(path) or "."
    temporary = os.path.join(folder, f"{_TEMPORARY}{uuid.uuid4().hex}")
    os.makedirs(folder, exist_ok=True)
    try:
        Path(temporary).write_bytes(data)
    except FileNotFoundError:
        # Empty, it was removed in between by one who left it.
        os.makedirs(folder, exist_ok=True)
        Path(temporary).write_bytes(data)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:
        try:
            with open(path, "xb") as stream:
                stream.write(data)
        except FileExistsError:
            return False
    finally:
        os.unlink(temporary)
    return True


def honours_create(url: str) -> bool:
    """Whether `create` keeps its word in the store of `url`, found out by creating the object `url` twice."""
    if is_local(url):
        return True
    try:
        create(url, b"1")
        return not create(url, b"2")
    finally:
        delete([url])


@_retrying
def modified(url: str) -> float:
    """When an object was written, in seconds, by the clock of its store.

    Raises:
        FileNotFoundError: there is none.
    """
    filesystem, path = _filesystem(url)
    with _request(url):
        return float(filesystem.modified(path).timestamp())


@contextlib.contextmanager
def writer(url: str) -> Iterator[IO[bytes]]:
    """A stream that becomes the object `url` when the block ends without an error, and leaves nothing behind otherwise.

    Local: a temporary beside the target, then rename. S3: sent in parts as they fill. Elsewhere:
        spooled to the local
    temporary folder, then one put, so that memory stays flat and a broken upload can start again.
    """
    if url.startswith(_S3):
        with _s3_writer(url) as upload:
            yield upload
        return
    filesystem, path = _filesystem(url)
    local = isinstance(filesystem, LocalFileSystem)
    with _writing(url), _translated(url):
        if local:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            temporary = os.path.join(os.path.dirname(path), f"{_TEMPORARY}{uuid.uuid4().hex}")
        else:
            temporary = os.path.join(tempfile.gettempdir(), f"{_TEMPORARY}{uuid.uuid4().hex}")
        stream = open(temporary, "wb", buffering=2**20)
    try:
        with _translated(url), stream:
            yield stream
        if local:
            with _translated(url):
                os.replace(temporary, path)
        else:
            _put_file(url, filesystem, temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


@contextlib.contextmanager
def _s3_writer(url: str) -> Iterator[IO[bytes]]:
    call, bucket, key = _s3_place(url)

    def checked(operation: str, **parameters: Any) -> dict[str, Any]:
        # The first request of an upload, which finds out whether there is a bucket.
        with _writing(url) if operation.startswith(("put", "create")) else contextlib.nullcontext():
            return call(operation, **parameters)

    upload = s3.Upload(checked, bucket, key)
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


def delete(urls: Sequence[str]) -> None:
    """Remove objects; those that are gone already do not matter."""
    for url in urls:
        with contextlib.suppress(FileNotFoundError):
            _delete(url)


@_retrying
def _delete(url: str) -> None:
    filesystem, path = _filesystem(url)
    with _request(url):
        filesystem.rm_file(path)


def remove_empty(folder: str) -> None:
    """Remove a local folder and those below it, as far as they hold nothing; other stores have no folders."""
    if not is_local(folder):
        return
    for path, _, _ in os.walk(_filesystem(folder)[1], topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(path)


def sweep_temporaries(folder: str) -> None:
    """Remove what killed writers left in a folder: local temporaries, parts of uploads that were never completed."""
    filesystem, path = _filesystem(folder)
    if isinstance(filesystem, LocalFileSystem):
        for leftover in Path(path).rglob(f"{_TEMPORARY}*"):
            leftover.unlink(missing_ok=True)
    sweep_uploads(folder)


def sweep_uploads(folder: str) -> int:
    """Have S3 forget the uploads below a folder that nobody will complete, as it bills their parts.

    Only who holds the folder alone may call this: an upload under way there would fail. A store
    that cannot list them, or does not let this run do so, is left as it is; a lifecycle rule serves
    there (docs/storage.md).

    Returns:
        How many there were.
    """
    if not folder.startswith(_S3):
        return 0
    call, bucket, key = _s3_place(folder)
    swept = 0
    try:
        for name, upload_id in s3.list_uploads(call, bucket, f"{key.rstrip('/')}/" if key else ""):
            with contextlib.suppress(FileNotFoundError):
                call("abort_multipart_upload", Bucket=bucket, Key=name, UploadId=upload_id)
                swept += 1
    except FileNotFoundError:
        pass  # Some stores say so of a folder that holds nothing yet.
    except (UserError, InfrastructureError) as error:
        log.info(
            "%s: unfinished uploads of killed processes are left where they are: %s", redact(folder), error
        )
    if swept:
        log.info("%s: %d unfinished uploads of killed processes aborted", redact(folder), swept)
    return swept


@contextlib.contextmanager
def local_copy(url: str) -> Iterator[str]:
    """A path on this machine with the object's content, for libraries that only read files."""
    filesystem, path = _filesystem(url)
    if isinstance(filesystem, LocalFileSystem):
        yield path
        return
    folder = tempfile.mkdtemp(prefix=_TEMPORARY)
    try:
        target = os.path.join(folder, os.path.basename(path))
        with open_read(url) as source, open(target, "wb") as sink:
            shutil.copyfileobj(source, sink, 2**20)
        yield target
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def checksum(data: bytes) -> str:
    """SHA-256 in hex: what receipts and manifests record of each file, and what `sha256sum` prints.

    Processors have instructions for it: 0.41 s per 0.7 GB, where BLAKE2b takes 0.9 s.
    """
    return hashlib.sha256(data).hexdigest()


def new_checksum() -> "hashlib._Hash":
    """`checksum` of bytes that come in pieces: `update`, then `hexdigest`."""
    return hashlib.sha256()
