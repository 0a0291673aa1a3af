"""Files at any URL, local or remote: `from d2prune import store`, then `store.read_bytes(url)`.

This module re-exports the functions on files. Artifacts, schemas and leases are modules of this
package.

Reads stream or fetch ranges. Writes are atomic: under its final name a reader sees a complete
object or none, even if the writer is killed. Three kinds of errors come out: `FileNotFoundError`;
`UserError` for what a person must fix (credentials, permissions, a missing bucket, a full disk);
and `InfrastructureError` after the last retry. fsspec is imported in this package and nowhere else.
"""

from d2prune.redaction import redact
from d2prune.store.checksums import checksum, new_checksum
from d2prune.store.filesystem import contains, is_local, normalise, resolve
from d2prune.store.input_listing import find_files, has_listings, look_up
from d2prune.store.listing import (
    FileInfo,
    describe,
    exists,
    info,
    is_folder,
    list_entries,
    list_files,
    modified,
)
from d2prune.store.local_disk import TEMPORARY, Sync
from d2prune.store.local_listing import FOLDER
from d2prune.store.locations import check_folder, check_literal, check_readable, check_writable
from d2prune.store.reading import (
    local_copy,
    local_reader,
    open_read,
    ranged_reader,
    read_bytes,
    read_range,
)
from d2prune.store.recorded import encode_record, is_recordable, recordable
from d2prune.store.sweeping import sweep_temporaries, sweep_uploads
from d2prune.store.urls import join
from d2prune.store.writing import create, delete, remove_empty_folders, supports_create, write_bytes, writer

__all__ = [
    "FOLDER",
    "TEMPORARY",
    "FileInfo",
    "Sync",
    "check_folder",
    "check_literal",
    "check_readable",
    "check_writable",
    "checksum",
    "contains",
    "create",
    "delete",
    "describe",
    "encode_record",
    "exists",
    "find_files",
    "has_listings",
    "info",
    "is_folder",
    "is_local",
    "is_recordable",
    "join",
    "list_entries",
    "list_files",
    "local_copy",
    "local_reader",
    "look_up",
    "modified",
    "new_checksum",
    "normalise",
    "open_read",
    "ranged_reader",
    "read_bytes",
    "read_range",
    "recordable",
    "redact",
    "remove_empty_folders",
    "resolve",
    "supports_create",
    "sweep_temporaries",
    "sweep_uploads",
    "write_bytes",
    "writer",
]
