"""The target set of NormSim: image embeddings in an `.npy` or a parquet file."""

import hashlib
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import UserError
from d2prune.knn.features import unit_rows

OPTION = "score.target"
COLUMN = "image_emb"
_EXPECTED = f"floats [M, D] in an .npy file, or a parquet file with a column {COLUMN} of lists of D floats"


def hash_target(url: str | None) -> str | None:
    """Return the SHA-256 of the target file, as hex; None without a target.

    Raises:
        UserError: the file does not exist.
    """
    return None if url is None else hashlib.sha256(_read(url)).hexdigest()


def read_target(url: str, expected_hash: str) -> NDArray[np.float32]:
    """Read the target set; float32 [M, D], unit norm.

    Raises:
        UserError: the file is no matrix of floats, has a row that cannot be normalised, or changed since
            the run was planned.
    """
    data = _read(url)
    if hashlib.sha256(data).hexdigest() != expected_hash:
        raise UserError(f"{OPTION}: {store.redact(url)} changed during the run; run again")
    try:
        rows_MD = _parse(data, is_parquet=url.endswith(".parquet"))
    except (ValueError, KeyError, EOFError, pa.ArrowException) as error:
        raise UserError(
            f"{OPTION}: {store.redact(url)}: cannot be read ({error}); expected {_EXPECTED}"
        ) from None
    if rows_MD.ndim != 2 or rows_MD.dtype.kind != "f" or 0 in rows_MD.shape:
        found = f"{rows_MD.dtype} {rows_MD.shape}"
        raise UserError(f"{OPTION}: {store.redact(url)}: found {found}; expected {_EXPECTED}")
    return unit_rows(rows_MD, name=f"{OPTION}: embedding")


def _read(url: str) -> bytes:
    try:
        return store.read_bytes(url)
    except FileNotFoundError:
        raise UserError(f"{OPTION}: {store.redact(url)}: not found; expected {_EXPECTED}") from None


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
