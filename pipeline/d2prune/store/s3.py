"""S3 one request at a time, so that each is retried by itself: pages of a listing, and objects written in parts.

A listing of 100 pages or an upload of 300 parts that starts over at each fault never ends where one
request in seven fails. `Call` is one request with its retries (`d2prune.store` makes it); nothing
here knows of clients or keys.
"""

import collections
import contextlib
import io
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from d2prune.errors import D2PruneError, InfrastructureError, UserError

PART = 16 * 2**20
"""Bytes of a part: S3 wants 5 MiB at least, and equal ones suit every store."""

MAX_PARTS = 10_000
"""S3's own limit, so that an object holds at most 156 GiB."""

_AT_ONCE = 4


class Call(Protocol):
    """One request: S3's operation in snake case and its parameters -> the parsed answer."""

    def __call__(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Raises FileNotFoundError, UserError, or InfrastructureError once all tries are used up."""
        ...


def list_objects(call: Call, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    """Every object whose key begins with `prefix`, as S3 tells of it (Key, Size, ETag, LastModified), a page a request.

    Raises:
        FileNotFoundError: there is no such bucket.
    """
    more: dict[str, str] = {}
    while True:
        page = call("list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
        yield from page.get("Contents", [])
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


def list_uploads(call: Call, bucket: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Key and upload id of every multipart upload under way, or left so by a kill, of keys that begin with `prefix`.

    Raises:
        FileNotFoundError: there is no such bucket.
    """
    more: dict[str, str] = {}
    while True:
        page = call("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **more)
        for upload in page.get("Uploads", []):
            # Not every server takes the prefix to heart, and what others are uploading must be left alone.
            if upload["Key"].startswith(prefix):
                yield upload["Key"], upload["UploadId"]
        if not page.get("IsTruncated"):
            return
        more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


class Upload(io.RawIOBase):
    """Bytes as they come -> an object that appears whole at `commit`, or never.

    Up to one part is a single put; more is a multipart upload with a few parts under way, so memory
    holds at most six. What a killed process leaves of one is invisible to readers;
    `storage.sweep_uploads` of a later run removes it.
    """

    def __init__(self, call: Call, bucket: str, key: str) -> None:
        """Nothing is sent yet."""
        super().__init__()
        self._call, self._place, self._part = call, {"Bucket": bucket, "Key": key}, PART
        self._pending: list[bytes | memoryview] = []
        self._held = self._size = self._parts = 0
        self._upload_id: str | None = None
        self._under_way: collections.deque[Future[dict[str, Any]]] = collections.deque()
        self._etags: list[str] = []
        self._threads: ThreadPoolExecutor | None = None
        self._given_up = False

    def writable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Bytes taken so far."""
        return self._size

    def write(self, data: Any) -> int:
        """Take bytes; raises what an earlier part ran into."""
        taken = bytes(data)
        if self._given_up:
            return len(taken)
        self._pending.append(taken)
        self._held += len(taken)
        self._size += len(taken)
        while self._held >= self._part:
            last = memoryview(self._pending.pop())
            more = self._held - self._part
            cut = len(last) - more
            self._send(b"".join([*self._pending, last[:cut]]))
            self._pending, self._held = [last[cut:]], more
        return len(taken)

    def commit(self) -> None:
        """Make the object appear.

        Raises:
            UserError: no such bucket, no right to write, or too large an object.
            InfrastructureError: the store failed for as long as it was tried.
        """
        rest = b"".join(self._pending)
        if self._upload_id is None:
            self._call("put_object", **self._place, Body=rest)
            return
        if rest:
            self._send(rest)
        while self._under_way:
            self._etags.append(self._under_way.popleft().result()["ETag"])
        parts = [{"PartNumber": i + 1, "ETag": etag} for i, etag in enumerate(self._etags)]
        try:
            self._call(
                "complete_multipart_upload",
                **self._place,
                UploadId=self._upload_id,
                MultipartUpload={"Parts": parts},
            )
        except FileNotFoundError as error:
            # Completed by a try whose answer was lost: the upload is gone and the object is there.
            if self._call("head_object", **self._place)["ContentLength"] != self._size:
                raise InfrastructureError(f"{error}: its upload is gone") from error

    def abort(self) -> None:
        """Have the store forget the parts; never raises, and what is written from now on goes nowhere."""
        self._given_up = True
        self.release()
        if self._upload_id is not None:
            with contextlib.suppress(D2PruneError, FileNotFoundError):
                self._call("abort_multipart_upload", **self._place, UploadId=self._upload_id)

    def release(self) -> None:
        """End the threads."""
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)

    def _send(self, data: bytes) -> None:
        if self._upload_id is None or self._threads is None:
            self._upload_id = str(self._call("create_multipart_upload", **self._place)["UploadId"])
            self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="d2prune-upload")
        if self._parts == MAX_PARTS:
            raise UserError(
                f"s3://{self._place['Bucket']}/{self._place['Key']}: larger than {MAX_PARTS:,} parts of "
                f"{self._part / 2**20:g} MiB; use smaller shards (write.samples_per_shard)"
            )
        if len(self._under_way) == _AT_ONCE:
            self._etags.append(self._under_way.popleft().result()["ETag"])
        self._parts += 1
        place = {**self._place, "PartNumber": self._parts, "UploadId": self._upload_id}
        self._under_way.append(self._threads.submit(self._call, "upload_part", **place, Body=data))
