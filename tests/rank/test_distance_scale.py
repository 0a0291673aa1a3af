"""The median distance of a stored graph equals that of the graph in memory, on any number of workers."""

import numpy as np
import pyarrow as pa
import pytest

from d2prune.d2.gamma import median_sq_distance
from d2prune.execution import InProcess, Resources
from d2prune.knn.csr import Graph
from d2prune.parts.files import NEIGHBORS, SAMPLES
from d2prune.parts.neighbors import to_table
from d2prune.parts.reader import Parts
from d2prune.rank import distance_scale
from d2prune.rank.distance_scale import find_median_sq_distance
from d2prune.store import artifacts

RNG = np.random.default_rng(3)
DISTANCES = {
    "many": RNG.random(5000) * 2,
    "close together": 0.5 + RNG.random(999) * 1e-6,
    "mostly copies": np.where(RNG.random(400) < 0.7, 0, RNG.random(400)),
    "copies only": np.zeros(50),
    "one": np.array([0.125]),
    "none": np.zeros(0),
    "tiny": np.array([0, 1e-45, 1e-40, 1e-38, 3e-38, 4.0]),
}


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("n_parts", [1, 7])
def test_stored_median_equals_the_median_in_memory(tmp_path, monkeypatch, name, n_parts):
    distances = DISTANCES[name].astype(np.float32)
    folder, receipts = str(tmp_path / "graph"), []
    for part, rows in enumerate(np.array_split(distances, n_parts)):
        graph = Graph(np.array([0, len(rows), len(rows)]), np.zeros(len(rows), np.int64), rows)
        tables = {NEIGHBORS: to_table(graph, np.zeros(2, bool)), SAMPLES: pa.table({"uid": ["a", "b"]})}
        receipts.append(artifacts.commit_unit(folder, f"{part:08d}", tables, {"edges": len(rows)}))
    parts = Parts(str(tmp_path), {"embed": receipts, "graph": receipts})
    for workers, few in ((1, 0), (2, 0), (50, 0), (1, 10**6)):
        monkeypatch.setattr(distance_scale, "_FEW", few)
        found = find_median_sq_distance(parts, InProcess(), Resources(workers=workers))
        assert found == median_sq_distance(distances)
