"""Embed on a cluster whose helper nodes join and leave; print what happened as JSON.

In a process of its own (`python -m tests.embed.decode.remote_cluster POOL MODEL FOLDER`): a process has
one Ray, and this one ends its cluster. GPUs are only said to be there: what is tested is who decodes where.
"""

import json
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2prune.embed.decode.decoder import Decoder
from d2prune.execution import Helpers
from tests.embed.decode.faulty_decoders import SlowDecoder


@dataclass(frozen=True)
class Make:
    """Builds a worker whose decoders are sluggish; it writes down what it is called with."""

    folder: str
    params: Any
    model: str
    helpers: Helpers

    def __call__(self) -> Any:
        from d2prune.embed import worker as stage

        stage.Decoder = lambda *given: SlowDecoder(f"{self.folder}/slow", Decoder(*given))
        worker = stage.EmbedWorker(self.folder, self.params, self.model, None, "cpu", helpers=self.helpers)

        def work(unit: Any) -> Any:
            with open(f"{self.folder}/called", "a") as file:
                file.write(f"{unit.key}\n")
            return worker(unit)

        return work


def main(pool: str, model: str, folder: str) -> None:
    from ray.cluster_utils import Cluster

    from d2prune.embed import params as embed_params
    from d2prune.embed import worker as stage
    from d2prune.embed.model import sources
    from d2prune.execution import OnRay, Resources, metrics
    from d2prune.inputs.shards import expand_input

    # Workers of the cluster use the checkout that this test runs in.
    os.environ["PYTHONPATH"] = os.pathsep.join([f"{os.getcwd()}/pipeline", os.getcwd()])
    head = {"num_cpus": 2, "num_gpus": 1, "include_dashboard": False, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    executor = OnRay(cluster.address)
    # Two workers, half a GPU and one core each: the head's cores are theirs, so whatever helps is elsewhere.
    resources = Resources(
        workers=1, num_cpus=1, num_gpus=0.5, units_in_flight=stage.SHARDS_IN_FLIGHT, grows=True
    )
    helpers = executor.helpers(resources)
    params = embed_params.EmbedParams(*sources.identity(model, None), batch_size=4)
    units = embed_params.plan(expand_input(pool), params)
    Path(folder).mkdir()
    slow = Path(folder, "slow")
    slow.touch()

    def remotely() -> float:
        return metrics.total(metrics.SAMPLES_DECODED_REMOTELY)

    facts = {"places at first": sorted(helpers.nodes().values()), "room": executor._count_fitting(resources)}
    receipts: dict[str, object] = {}
    steps: list[str] = []
    first = second = None
    since = 0.0
    start = time.monotonic()
    for receipt in executor.map(Make(folder, params, model, helpers), units, resources):
        receipts[receipt.key] = sorted([file.name, file.checksum] for file in receipt.files)
        if first is None:
            first = cluster.add_node(num_cpus=2, object_store_memory=100 << 20)
            facts["places then"] = sorted(helpers.nodes().values())
        elif second is None and remotely():
            steps.append("the first node decoded")
            second = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
            cluster.remove_node(first, allow_graceful=False)
            steps.append(f"removed after {len(receipts)}")
            since = remotely()
        elif second is not None and remotely() > since and len(steps) == 2:
            steps.append("the second node decoded")
            slow.unlink()
    calls = Counter(Path(folder, "called").read_text().split())
    facts |= {"steps": steps, "remotely": remotely(), "receipts": receipts, "most calls": max(calls.values())}
    facts["seconds"] = round(time.monotonic() - start, 1)
    executor.close()
    cluster.shutdown()
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
