"""Exact copies: samples whose images have the same SHA-256, in any part of the pool.

Each part sends the hashes of its images to buckets, and each bucket groups its hashes. Of a group, the
sample of highest difficulty stays, ties to the lower canonical position; the others go back to their
parts with its position. Memory: the hashes of one part, or of one bucket.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from d2prune.dedup.job import DedupJob
from d2prune.inputs.tables.column_names import IMAGE_HASHES
from d2prune.parts.files import NEIGHBORS, SAMPLES
from d2prune.parts.reader import Parts
from d2prune.stage import exchange
from d2prune.store import artifacts
from d2prune.store.artifacts import Receipt

HASHES, COPIES = "hashes.bin", "copies.bin"
COPY = np.dtype([("position", "<i8"), ("keeper", "<i8")])
_WORDS = ("hash0", "hash1", "hash2", "hash3")
_HASHED = np.dtype([*((word, "<u8") for word in _WORDS), ("key", "<i8"), ("position", "<i8")])
_SHA256_BYTES = 32
_HEX = f"^[0-9a-fA-F]{{{2 * _SHA256_BYTES}}}$"
# A bucket is sorted at about 100 bytes a row.
_BUCKET_ROWS = 2**22

STORED = "image_sha256"
"""Column of samples with the hash of a stored image; `IMAGE_HASHES` is that of samples from tables."""


def choose_buckets(n_rows: int) -> int:
    """Return the number of buckets for a pool of `n_rows` rows."""
    return max(1, -(-n_rows // _BUCKET_ROWS))


@dataclass(frozen=True)
class CopiesUnit:
    """One part, or one bucket."""

    key: str
    index: int


@dataclass(frozen=True)
class HashWorker:
    """Sends the image hashes of a part to the buckets."""

    job: DedupJob

    def __call__(self, unit: CopiesUnit) -> Receipt:
        """Read and commit one part."""
        job, part = self.job, unit.index
        hash_N4, is_known_N = read_hashes(job.parts, part)
        cut_off_N = job.parts.read(part, NEIGHBORS, ["cut_off"])["cut_off"].to_numpy()
        row_M = np.flatnonzero(is_known_N & ~cut_off_N)
        records = np.empty(len(row_M), _HASHED)
        for column, word in enumerate(_WORDS):
            records[word] = hash_N4[row_M, column]
        records["key"] = job.read_keys([part])[row_M]
        records["position"] = job.parts.spans.bounds(part)[0] + row_M
        bucket_M = (records[_WORDS[0]] % np.uint64(job.buckets)).astype(np.int64)
        files = {HASHES: exchange.pack(records, bucket_M, job.buckets)}
        return artifacts.commit_unit(job.folder, unit.key, files)


@dataclass(frozen=True)
class CopiesWorker:
    """Groups the hashes of a bucket and sends the copies to their parts."""

    job: DedupJob

    def __call__(self, unit: CopiesUnit) -> Receipt:
        """Group and commit one bucket."""
        job, spans = self.job, self.job.parts.spans
        urls = [artifacts.unit_url(job.folder, key, HASHES) for key in job.hashes_keys]
        records = exchange.read_concatenated(urls, _HASHED, unit.index)
        copies = find_copies(records)
        files = {COPIES: exchange.pack(copies, spans.part_of(copies["position"]), spans.n_parts)}
        return artifacts.commit_unit(job.folder, unit.key, files)


def find_copies(records: exchange.Records) -> exchange.Records:
    """Return the samples that have a better copy, as `COPY`, from records of `_HASHED`."""
    words = [records[word] for word in _WORDS]
    records = records[np.lexsort((records["position"], -records["key"], *words))]
    is_first = np.ones(len(records), bool)
    is_first[1:] = np.any([records[word][1:] != records[word][:-1] for word in _WORDS], axis=0)
    keeper = records["position"][is_first][np.cumsum(is_first) - 1]
    copies = np.empty(int((~is_first).sum()), COPY)
    copies["position"], copies["keeper"] = records["position"][~is_first], keeper[~is_first]
    return copies


def read_copies(job: DedupJob, part: int) -> exchange.Records:
    """Read the copies of a part that are dropped, as `COPY`; none for near-duplicates only."""
    urls = [artifacts.unit_url(job.folder, key, COPIES) for key in job.copies_keys]
    return exchange.read_concatenated(urls, COPY, part)


def read_hashes(parts: Parts, part: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    """Read the image hashes of a part.

    Returns:
        uint64 [N, 4] and bool [N], whether the sample has one.
    """
    columns = [STORED, *({IMAGE_HASHES} & set(parts.names(SAMPLES)))]
    table = parts.read(part, SAMPLES, columns)
    column = table[STORED].combine_chunks()
    if column.null_count and IMAGE_HASHES in table.column_names:
        column = pc.coalesce(column, parse_hex(table[IMAGE_HASHES].combine_chunks()))
    is_known_N = column.is_valid().to_numpy(zero_copy_only=False)
    data = b"".join(column.fill_null(bytes(_SHA256_BYTES)).to_pylist())
    return np.frombuffer(data, "<u8").reshape(-1, len(_WORDS)), is_known_N


def parse_hex(text_N: pa.Array) -> pa.Array:
    """Return hashes of 64 hex digits as binary(32); null where the text is no such hash."""
    is_hash_N = pc.match_substring_regex(text_N, _HEX).to_pylist()
    hashes = [
        bytes.fromhex(text) if good else None
        for text, good in zip(text_N.to_pylist(), is_hash_N, strict=True)
    ]
    return pa.array(hashes, pa.binary(_SHA256_BYTES))
