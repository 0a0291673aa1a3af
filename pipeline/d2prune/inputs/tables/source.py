"""An open table file with the arrays beside it: where embeddings are stored, and their matrices.

Invariant: row i of the table and row i of every array are one sample, so their counts agree.
"""

import contextlib
from collections.abc import Collection, Iterator
from typing import Literal

import numpy as np

from d2prune import store
from d2prune.errors import UserError
from d2prune.inputs.rejects import clean_line
from d2prune.inputs.tables.files import TableFile
from d2prune.inputs.tables.matrices import Matrix, NpzArrays, open_npy, open_npz
from d2prune.inputs.tables.parquet import ParquetTable, open_table
from d2prune.inputs.tables.values import VECTOR, can_be_read, is_null, value_bytes

Location = Literal["npz", "npy", "column"]

IN_PLACE = ("<f2", "<f4")
"""Types of arrays that are read in place: what is made of them costs little each time."""


class TableSource:
    """See the module's docstring.

    Attributes:
        table: the parquet file.
    """

    def __init__(self, file: TableFile, table: ParquetTable, npz: NpzArrays | None) -> None:
        """Hold what `open_source` opened."""
        self.table = table
        self._file, self._npz = file, npz

    def list_arrays(self, usual: Collection[str] = ()) -> list[str]:
        """Return all names under which embeddings are stored.

        Args:
            usual: names that also count as embeddings if their column is all null.
        """
        columns = [
            field.name
            for field in self.table.schema
            if can_be_read(field.type, VECTOR) and (field.name in usual or not is_null(field.type))
        ]
        return [*sorted(self._file.arrays), *(self._npz.names if self._npz else []), *columns]

    def locate(self, name: str) -> Location:
        """Return where the embeddings called `name` are stored.

        Raises:
            UserError: there are none; the message lists the existing ones.
        """
        if name in self._file.arrays:
            return "npy"
        if self._npz is not None and name in self._npz.names:
            return "npz"
        if name in self.table.schema.names:
            self.table.require_kind(name, VECTOR)
            return "column"
        shown = store.redact((self._file.npz or self._file.table).url)
        existing = clean_line(", ".join(self.list_arrays())) or "none"
        raise UserError(f"{shown}: no embeddings called {clean_line(name)}; found {existing}")

    def describe(self, name: str, where: Location) -> str:
        """Return the file and the name of embeddings, for messages."""
        match where:
            case "npz" if self._file.npz is not None:
                return f"{store.redact(self._file.npz.url)}: {clean_line(name)}"
            case "npy":
                return f"{store.redact(self._file.arrays[name].url)}: {clean_line(name)}"
        return f"{self.table.shown}: column {clean_line(name)}"

    def value_bytes(self, name: str) -> int:
        """Return the bytes of one value of embeddings; raises what `locate` and `open_matrix` do."""
        where = self.locate(name)
        if where == "column":
            return value_bytes(self.table.schema.field(name).type)
        with self.open_matrix(name, where) as matrix:
            return np.dtype(matrix.dtype).itemsize

    def why_copied(self, name: str, matrix: Matrix | None) -> str | None:
        """Return why embeddings cannot be read in place, in words; None if they can.

        Args:
            name: of the array or column.
            matrix: from `open_matrix`; None for a column.
        """
        if matrix is None:
            return f"{self.describe(name, 'column')} is a column of lists"
        where = self.describe(name, self.locate(name))
        if matrix.offset is None:
            return f"{where} is compressed"
        if matrix.dtype not in IN_PLACE:
            return f"{where} is {np.dtype(matrix.dtype)}"
        if not self._file.is_recordable:
            return f"the URL of {where} holds a query or a credential, which is not stored"
        return None

    @contextlib.contextmanager
    def open_matrix(self, name: str, where: Location) -> Iterator[Matrix]:
        """Open embeddings that are an array.

        Raises:
            UserError: the array is not a matrix of floats, or its rows are not those of the table.
        """
        if where == "npz" and self._npz is not None and self._file.npz is not None:
            array, opened = self._file.npz, self._npz.open(name)
        else:
            array = self._file.arrays[name]
            opened = open_npy(array)
        with opened as matrix:
            if matrix.rows != self.table.rows:
                raise UserError(
                    f"{self.table.shown} has {self.table.rows} rows, but {clean_line(name)} in "
                    f"{store.redact(array.url)} has {matrix.rows}"
                )
            yield matrix


@contextlib.contextmanager
def open_source(file: TableFile) -> Iterator[TableSource]:
    """Open a table and the `.npz` file beside it.

    Raises:
        UserError: a file is missing, changed or damaged.
    """
    with contextlib.ExitStack() as stack:
        table = stack.enter_context(open_table(file.table))
        npz = stack.enter_context(open_npz(file.npz)) if file.npz is not None else None
        yield TableSource(file, table, npz)
