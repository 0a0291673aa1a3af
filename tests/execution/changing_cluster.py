"""Run units on a cluster that gains a node and loses it again; print what happened, as JSON.

It runs in a process of its own (`python -m tests.execution.changing_cluster FOLDER`), because a
process has one Ray and this one shuts its cluster down.
"""

import json
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

N_UNITS = 24


@dataclass(frozen=True)
class Unit:
    key: str


@dataclass(frozen=True)
class Worker:
    folder: str

    def __call__(self, unit: Unit) -> tuple[str, str]:
        import ray

        node = ray.get_runtime_context().get_node_id()
        with open(f"{self.folder}/{unit.key}", "a") as file:
            file.write(f"{node}\n")
        time.sleep(0.3)
        return unit.key, node


@dataclass(frozen=True)
class MakeWorker:
    folder: str

    def __call__(self) -> Worker:
        return Worker(self.folder)


def main(folder: str) -> None:
    from ray.cluster_utils import Cluster

    from d2prune.execution import OnRay, Resources

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 1, "include_dashboard": False}
    )
    executor = OnRay(cluster.address)
    results: dict[str, str] = {}
    joined = lost = None
    lost_at = 0
    units = [Unit(f"u{number:02d}") for number in range(N_UNITS)]
    for key, node in executor.map(MakeWorker(folder), units, Resources(workers=1, num_gpus=0.5, grows=True)):
        results[key] = node
        if len(results) == 2:
            joined = cluster.add_node(num_cpus=2, num_gpus=1)
        # After a result of its own, the node's worker would have no unit to lose.
        if (
            joined is not None
            and lost is None
            and joined.node_id in results.values()
            and node != joined.node_id
        ):
            lost = joined
            lost_at = len(results)
            cluster.remove_node(joined, allow_graceful=False)
    attempts = {path.name: len(path.read_text().splitlines()) for path in Path(folder).iterdir()}
    facts = {
        "results": len(results),
        "joined node was used": joined is not None and joined.node_id in results.values(),
        "results before the loss": lost_at,
        "repeated runs": sum(count - 1 for count in attempts.values()),
        "most attempts": max(attempts.values()),
        "nodes": len(Counter(results.values())),
    }
    executor.close()
    cluster.shutdown()
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
