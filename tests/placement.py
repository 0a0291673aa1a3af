"""Drives a cluster that gains a node and loses one while units run on shares of GPUs; prints what happened, as JSON.

In a process of its own (`python -m tests.placement FOLDER`): a process has one Ray, and this one
ends its cluster.
"""

import json
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROUNDS = 24


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
class Make:
    folder: str

    def __call__(self) -> Worker:
        return Worker(self.folder)


def main(folder: str) -> None:
    from ray.cluster_utils import Cluster

    from d2prune.execution import OnRay, Resources

    os.environ["PYTHONPATH"] = os.getcwd()
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 1, "include_dashboard": False}
    )
    executor = OnRay(cluster.address)
    results: dict[str, str] = {}
    joined = lost = None
    lost_at = 0
    units = [Unit(f"u{number:02d}") for number in range(ROUNDS)]
    for key, node in executor.map(Make(folder), units, Resources(workers=1, num_gpus=0.5, grows=True)):
        results[key] = node
        if len(results) == 2:
            joined = cluster.add_node(num_cpus=2, num_gpus=1)
        # Not at a result of its own: its worker would have nothing in hand.
        if (
            joined is not None
            and lost is None
            and joined.node_id in results.values()
            and node != joined.node_id
        ):
            lost = joined
            lost_at = len(results)
            cluster.remove_node(joined, allow_graceful=False)
    tries = {path.name: len(path.read_text().splitlines()) for path in Path(folder).iterdir()}
    facts = {
        "results": len(results),
        "joined was used": joined is not None and joined.node_id in results.values(),
        "lost after": lost_at,
        "done twice": sum(count - 1 for count in tries.values()),
        "most tries": max(tries.values()),
        "nodes": len(Counter(results.values())),
    }
    executor.close()
    cluster.shutdown()
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
