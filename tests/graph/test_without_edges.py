"""`graph.n_neighbors: 0`: no graph, for the methods that use none."""

import pyarrow as pa
import pytest

from d2prune.errors import UserError
from d2prune.execution import InProcess
from d2prune.parts.files import DECISIONS
from d2prune.parts.reader import Parts
from d2prune.runs.driver import run


@pytest.mark.parametrize("method", ["score", "random", "ccs"])
def test_no_graph_for_methods_that_use_none_selects_the_same(configure, method):
    decided = []
    for k in (2, 0):
        select = {"fraction": 0.4, "method": method, "drop_score": "width", "drop_fraction": 0.1}
        config = configure(graph={"n_neighbors": k}, select=select)
        manifests = run(config, InProcess(), stop_after="select").manifests
        parts = Parts(config.work_dir, {name: found.units for name, found in manifests.items()})
        decided.append(pa.table({name: parts.column(DECISIONS, name) for name in ("uid", "kept", "reason")}))
    assert decided[0].equals(decided[1])
    graph = manifests["graph"]
    assert (graph.counters["edges"], graph.facts["n_neighbors"]) == (0, 0)


@pytest.mark.parametrize(
    ("changes", "user"),
    [
        ({}, "select.method d2"),
        ({"select": {"fraction": 0.3, "method": "forward"}}, "select.method forward"),
        ({"select": {"fraction": 0.3, "method": "score"}, "dedup": {"near": 0.9}}, "dedup.near"),
    ],
)
def test_no_graph_where_one_is_needed_is_one_line(configure, changes, user):
    with pytest.raises(UserError, match=f"found 0; expected .*, since {user} uses the graph"):
        configure(graph={"n_neighbors": 0}, **changes)
