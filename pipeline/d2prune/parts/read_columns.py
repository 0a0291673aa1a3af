"""Columns of a stored parquet table, without reading the rest of the file.

A local file is mapped, a remote one is read in ranges; the size comes from the receipt, so nothing
is asked of the store beforehand. Checksums are not verified, which would mean reading whole files:
this is for looking, not for deciding.
"""

from collections.abc import Sequence

import pyarrow as pa

from d2prune import store
from d2prune.errors import InfrastructureError
from d2prune.store import artifacts
from d2prune.store.artifacts import Receipt
from d2prune.store.ranges import open_parquet


def read_columns(folder: str, receipt: Receipt, name: str, columns: Sequence[str]) -> pa.Table:
    """Some columns of a unit's table.

    Raises:
        InfrastructureError: the file is gone or no parquet.
    """
    url = artifacts.unit_url(folder, receipt.key, name)
    try:
        with open_parquet(url, _size(receipt, name)) as file:
            return file.read(columns=list(columns), use_threads=False)
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise InfrastructureError(
            f"{store.redact(url)}: cannot be read: {error}; run again to make it"
        ) from error


def names(folder: str, receipt: Receipt, name: str) -> list[str]:
    """The columns that a unit's table has."""
    with open_parquet(artifacts.unit_url(folder, receipt.key, name), _size(receipt, name)) as file:
        return [str(column) for column in file.schema_arrow.names]


def _size(receipt: Receipt, name: str) -> int:
    return next(file.size for file in receipt.files if file.name == name)
