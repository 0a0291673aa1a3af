"""Have what numba compiles compiled and cached: ``python -m tests.warm``.

Run before the tests, once. In a fresh clone each of their processes, and of the workers and
programs that they start, would compile it for itself, all at the same moment.
"""

import tempfile
from pathlib import Path

import numpy as np

from d2prune.config.model import RunConfig
from d2prune.execution import InProcess
from d2prune.knn.in_memory import knn_graph_report
from d2prune.reshard.reshard import reshard
from d2prune.runs.driver import run
from tests.pools import write_pool


def main() -> None:
    """A run and a resharding of a small pool, and a graph with lists and images."""
    with tempfile.TemporaryDirectory(prefix="d2prune-warm-") as temporary:
        folder = Path(temporary)
        values = {
            "input": str(write_pool(folder / "pool", shards=2)),
            "work_dir": str(folder / "work"),
            "output": str(folder / "output"),
            "embed": {"model": "demo"},
            "select": {"fraction": 0.3},
        }
        run(RunConfig.parse(values, "warm"), InProcess())
        reshard(str(folder / "pool"), str(folder / "output" / "subset.npy"), str(folder / "again"))
    rows = np.random.default_rng(0).normal(size=(20_000, 96)).astype(np.float32)
    knn_graph_report(rows @ rows[:96].T, 5, nlist=400, nprobe=3)


if __name__ == "__main__":
    main()
