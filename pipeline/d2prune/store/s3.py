"""Listings and uploads of S3, split into requests that are retried one by one.

A listing of 100 pages, or an upload of 300 parts, that starts over after each fault never finishes
if one request in seven fails. A `Call` makes one request with its retries (`store.s3_client`); this
module has no client and no credentials.
"""

import collections
import contextlib
import io
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from d2prune.errors import D2PruneError, InfrastructureError, UserError

PART = 16 * 2**20
"""Bytes of a part. S3 requires at least 5 MiB, and some stores require equal parts."""

MAX_PARTS = 10_000
"""S3's limit. An object has at most 156 GiB."""

_CONCURRENT_PARTS = 4


class Call(Protocol):
    """Makes one request: S3's operation in snake case and its parameters -> the parsed answer."""

    def __call__(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Raises FileNotFoundError, UserError, or InfrastructureError after the last retry."""
        ...


def list_objects(call: Call, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    """Every object whose key begins with `prefix`, one request per page.

    Yields:
        S3's entries: Key, Size, ETag, LastModified.

    Raises:
        FileNotFoundError: the bucket does not exist.
    """
    next_page: dict[str, str] = {}
    while True:
        page = call("list_objects_v2", Bucket=bucket, Prefix=prefix, **next_page)
        yield from page.get("Contents", [])
        if not page.get("IsTruncated"):
            return
        next_page = {"ContinuationToken": page["NextContinuationToken"]}


def list_uploads(call: Call, bucket: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Key and upload id of every unfinished multipart upload whose key begins with `prefix`.

    Raises:
        FileNotFoundError: the bucket does not exist.
    """
    next_page: dict[str, str] = {}
    while True:
        page = call("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **next_page)
        for upload in page.get("Uploads", []):
            # Some servers ignore the prefix, and uploads outside it belong to others.
            if upload["Key"].startswith(prefix):
                yield upload["Key"], upload["UploadId"]
        if not page.get("IsTruncated"):
            return
        next_page = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


class Upload(io.RawIOBase):
    """A stream that becomes an object at `commit`; before that, readers see nothing.

    Up to one part is sent as a single put. More is a multipart upload with a few parts in flight,
    so memory holds at most six parts. What a killed process leaves of an upload is invisible to
    readers until `store.sweep_uploads` of a later run removes it.
    """

    def __init__(self, call: Call, bucket: str, key: str) -> None:
        """Send nothing yet."""
        super().__init__()
        self._call, self._target, self._part_size = call, {"Bucket": bucket, "Key": key}, PART
        self._buffers: list[bytes | memoryview] = []
        self._buffered = self._size = self._n_parts = 0
        self._upload_id: str | None = None
        self._in_flight: collections.deque[Future[dict[str, Any]]] = collections.deque()
        self._etags: list[str] = []
        self._threads: ThreadPoolExecutor | None = None
        self._aborted = False

    def writable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Bytes written so far."""
        return self._size

    def write(self, data: Any) -> int:
        """Take bytes; raises the error of an earlier part."""
        taken = bytes(data)
        if self._aborted:
            return len(taken)
        self._buffers.append(taken)
        self._buffered += len(taken)
        self._size += len(taken)
        while self._buffered >= self._part_size:
            last = memoryview(self._buffers.pop())
            excess = self._buffered - self._part_size
            end = len(last) - excess
            self._send_part(b"".join([*self._buffers, last[:end]]))
            self._buffers, self._buffered = [last[end:]], excess
        return len(taken)

    def commit(self) -> None:
        """Make the object visible.

        Raises:
            UserError: no such bucket, no permission to write, or too large an object.
            InfrastructureError: the store failed, after retries.
        """
        rest = b"".join(self._buffers)
        if self._upload_id is None:
            self._call("put_object", **self._target, Body=rest)
            return
        if rest:
            self._send_part(rest)
        while self._in_flight:
            self._collect_part()
        parts = [{"PartNumber": i + 1, "ETag": etag} for i, etag in enumerate(self._etags)]
        upload = {"UploadId": self._upload_id, "MultipartUpload": {"Parts": parts}}
        try:
            self._call("complete_multipart_upload", **self._target, **upload)
        except FileNotFoundError as error:
            # Completed by an attempt whose answer was lost, if the object exists.
            if self._call("head_object", **self._target)["ContentLength"] != self._size:
                raise InfrastructureError(f"{error}: its upload is gone") from error

    def abort(self) -> None:
        """Have the store drop the parts; later writes are discarded. Never raises."""
        self._aborted = True
        self.release()
        if self._upload_id is not None:
            with contextlib.suppress(D2PruneError, FileNotFoundError):
                self._call("abort_multipart_upload", **self._target, UploadId=self._upload_id)

    def release(self) -> None:
        """End the threads."""
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)

    def _send_part(self, data: bytes) -> None:
        if self._upload_id is None or self._threads is None:
            self._upload_id = str(self._call("create_multipart_upload", **self._target)["UploadId"])
            self._threads = ThreadPoolExecutor(_CONCURRENT_PARTS, thread_name_prefix="d2prune-upload")
        if self._n_parts == MAX_PARTS:
            raise UserError(
                f"s3://{self._target['Bucket']}/{self._target['Key']}: larger than {MAX_PARTS:,} parts of "
                f"{self._part_size / 2**20:g} MiB; use smaller shards (write.samples_per_shard)"
            )
        if len(self._in_flight) == _CONCURRENT_PARTS:
            self._collect_part()
        self._n_parts += 1
        part = {**self._target, "PartNumber": self._n_parts, "UploadId": self._upload_id}
        self._in_flight.append(self._threads.submit(self._call, "upload_part", **part, Body=data))

    def _collect_part(self) -> None:
        """Wait for the oldest part in flight."""
        self._etags.append(self._in_flight.popleft().result()["ETag"])
