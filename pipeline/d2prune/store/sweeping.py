"""Removal of what killed writers left: temporary files and unfinished uploads."""

import contextlib
import logging
import os
import time

from d2prune.errors import InfrastructureError, UserError
from d2prune.redaction import redact
from d2prune.store import s3, s3_client
from d2prune.store.filesystem import is_local, open_filesystem
from d2prune.store.local_disk import TEMPORARY, is_writer_alive
from d2prune.store.urls import S3_SCHEMES

log = logging.getLogger(__name__)

STALE_S = 3600.0
"""Age from which a temporary file counts as left behind if its writer cannot be seen from here."""


def sweep_temporaries(folder: str, recursive: bool = True) -> int:
    """Remove the temporary files that killed writers left in a local folder.

    A file is removed if its writer ran on this machine and has ended. If the writer cannot be seen
    from here, it is removed after `STALE_S` without a write. Files of live writers stay: `reshard`
    and `sweep` may write to the `work_dir` of a run.

    Args:
        folder: URL; other stores have no temporary files.
        recursive: whether to descend into its subfolders.

    Returns:
        Number of files removed.
    """
    if not is_local(folder):
        return 0
    swept = 0
    for parent, folders, names in os.walk(open_filesystem(folder)[1]):
        if not recursive:
            folders.clear()
        for name in names:
            path = os.path.join(parent, name)
            # Another process may be sweeping, too, and a file that stays does no harm.
            with contextlib.suppress(OSError):
                if name.startswith(TEMPORARY) and _is_left_behind(path, name):
                    os.unlink(path)
                    swept += 1
    if swept:
        log.info("%s: %d temporary files of killed processes removed", folder, swept)
    return swept


def _is_left_behind(path: str, name: str) -> bool:
    alive = is_writer_alive(name)
    return time.time() - os.lstat(path).st_mtime > STALE_S if alive is None else not alive


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
