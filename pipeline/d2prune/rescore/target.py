"""The target set of NormSim and of near_target, and centroids: an `.npy` or a parquet file of embeddings."""

import hashlib
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import UserError
from d2prune.knn.features import unit_rows

TARGET, CENTROIDS = "score.target", "score.centroids"
COLUMN = "image_emb"
_EXPECTED = f"floats [M, D] in an .npy file, or a parquet file with a column {COLUMN} of lists of D floats"


def hash_matrix(url: str | None, option: str) -> str | None:
    """Return the SHA-256 of a file, as hex; None without one.

    Raises:
        UserError: the file does not exist.
    """
    return None if url is None else hashlib.sha256(_read(url, option)).hexdigest()


def read_target(url: str, expected_hash: str) -> NDArray[np.float32]:
    """Read the target set; float32 [M, D], unit norm.

    Raises:
        UserError: as `read_centroids`, or a row cannot be normalised.
    """
    return unit_rows(read_rows(url, TARGET, expected_hash), name=f"{TARGET}: embedding")


def read_centroids(url: str, expected_hash: str) -> NDArray[np.float32]:
    """Read the centroids, of any norm; float32 [M, D].

    Raises:
        UserError: the file is no matrix of finite floats, or changed since the run was planned.
    """
    rows_MD = read_rows(url, CENTROIDS, expected_hash).astype(np.float32)
    if not np.isfinite(rows_MD).all():
        raise UserError(f"{CENTROIDS}: {store.redact(url)}: found NaN or infinite; expected finite floats")
    return rows_MD


def read_rows(url: str, option: str, expected_hash: str | None = None) -> NDArray[np.generic]:
    """Read a matrix of floats, [M, D], both at least 1; values are not checked.

    Raises:
        UserError: the file is no such matrix, or has another hash.
    """
    data = _read(url, option)
    if expected_hash is not None and hashlib.sha256(data).hexdigest() != expected_hash:
        raise UserError(f"{option}: {store.redact(url)} changed during the run; run again")
    try:
        rows_MD = _parse(data, is_parquet=url.endswith(".parquet"))
    except (ValueError, KeyError, EOFError, pa.ArrowException) as error:
        raise UserError(
            f"{option}: {store.redact(url)}: cannot be read ({error}); expected {_EXPECTED}"
        ) from None
    if rows_MD.ndim != 2 or rows_MD.dtype.kind != "f" or 0 in rows_MD.shape:
        found = f"{rows_MD.dtype} {rows_MD.shape}"
        raise UserError(f"{option}: {store.redact(url)}: found {found}; expected {_EXPECTED}")
    return rows_MD


def _read(url: str, option: str) -> bytes:
    try:
        return store.read_bytes(url)
    except FileNotFoundError:
        raise UserError(f"{option}: {store.redact(url)}: not found; expected {_EXPECTED}") from None


def _parse(data: bytes, is_parquet: bool) -> NDArray[np.generic]:
    if not is_parquet:
        loaded: NDArray[np.generic] = np.load(io.BytesIO(data), allow_pickle=False)
        return loaded
    column = pq.read_table(pa.BufferReader(data), columns=[COLUMN])[COLUMN].combine_chunks()
    widths = np.unique(column.value_lengths().to_numpy(zero_copy_only=False)) if len(column) else [0]
    if len(widths) != 1 or column.null_count:
        raise ValueError("lists of different lengths")
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat).reshape(len(column), int(widths[0]))
