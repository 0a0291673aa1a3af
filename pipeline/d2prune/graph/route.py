"""How a graph with a given quantiser is built: the rules that a build follows and a plan predicts.

Numbers in, reasons in words out; None where a rule does not apply.
"""

from collections.abc import Callable

from d2prune.graph.params import GraphParams
from d2prune.knn.in_memory import wants_lists

# A given quantiser is replaced if the pool has grown or shrunk by more than this factor.
GROWTH = 2

MOST_ADDED = 0.5
"""Share of added rows above which a full build is expected to cost less."""


def find_why_unused(n_rows: int, read_trained: Callable[[], int], params: GraphParams) -> str | None:
    """Return why a given quantiser must not be used.

    Args:
        n_rows: rows that the cut-off leaves.
        read_trained: returns the rows of the pool that the quantiser was trained for.
        params: of the graph.
    """
    if not params.n_neighbors or not wants_lists(n_rows, params.target_recall, params.nprobe):
        return f"a pool of {n_rows} rows is searched exactly"
    trained = read_trained()
    if not trained / GROWTH <= n_rows <= trained * GROWTH:
        return (
            f"found {n_rows} rows; expected {-(-trained // GROWTH)} to {trained * GROWTH}, half to twice the "
            "number that it was trained for"
        )
    return None


def find_why_full(n_rows: int, whole_below: int, params: GraphParams) -> str | None:
    """Return why a pool is built in full, whatever the graph before kept.

    Args:
        n_rows: rows that the cut-off leaves.
        whole_below: smaller pools are built in memory.
        params: of the graph.
    """
    if n_rows < whole_below:
        return "the pool is small"
    if params.drop_score is not None:
        return "select.drop_score moves the cut-off with the pool"
    return None


def find_why_too_many(added: int, n_rows: int) -> str | None:
    """Return why so many added rows call for a full build."""
    return f"{added} of {n_rows} rows are new" if added > n_rows * MOST_ADDED else None
