"""Removal of what killed writers left: temporary files and unfinished uploads."""

import contextlib
import logging
from pathlib import Path

from d2prune.errors import InfrastructureError, UserError
from d2prune.redaction import redact
from d2prune.store import s3, s3_client
from d2prune.store.filesystem import is_local, open_filesystem
from d2prune.store.listing import TEMPORARY
from d2prune.store.urls import S3_SCHEMES

log = logging.getLogger(__name__)


def sweep_temporaries(folder: str) -> None:
    """Remove what killed writers left in a folder: local temporary files and unfinished uploads."""
    if is_local(folder):
        for leftover in Path(open_filesystem(folder)[1]).rglob(f"{TEMPORARY}*"):
            leftover.unlink(missing_ok=True)
    sweep_uploads(folder)


def sweep_uploads(folder: str) -> int:
    """Abort the unfinished S3 uploads below a folder, whose parts the store bills.

    The caller must be the only writer of the folder: an upload in flight there would fail. A store
    that cannot list uploads, or does not allow this run to, is left alone; use a lifecycle rule
    there (docs/storage.md).

    Returns:
        Number of uploads aborted.
    """
    if not folder.startswith(S3_SCHEMES):
        return 0
    call, bucket, key = s3_client.locate(folder)
    swept = 0
    try:
        for name, upload_id in s3.list_uploads(call, bucket, f"{key.rstrip('/')}/" if key else ""):
            with contextlib.suppress(FileNotFoundError):
                call("abort_multipart_upload", Bucket=bucket, Key=name, UploadId=upload_id)
                swept += 1
    except FileNotFoundError:
        pass  # What some stores answer for a folder without objects.
    except (UserError, InfrastructureError) as error:
        log.info("%s: unfinished uploads of killed processes were not removed: %s", redact(folder), error)
    if swept:
        log.info("%s: %d unfinished uploads of killed processes aborted", redact(folder), swept)
    return swept
