"""Helpers for tests of table pools."""

from d2prune.inputs.find import find_input
from d2prune.inputs.tables.column_names import Columns, WantedColumns, resolve_columns
from d2prune.inputs.tables.files import TableFile
from tests.tables import make_rows

PARTS = [make_rows(5, seed) for seed in range(11)]


def find_tables(given) -> list[TableFile]:
    found = find_input(given)
    assert all(isinstance(file, TableFile) for file in found)
    return found


def find_columns(folder, **wanted) -> Columns:
    return resolve_columns(find_tables(str(folder)), WantedColumns(**wanted))
