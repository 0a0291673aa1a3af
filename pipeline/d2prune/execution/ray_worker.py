"""The Ray actor that hosts a worker, and what every actor of this package shares."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from d2prune import console
from d2prune.errors import D2PruneError
from d2prune.execution import metrics


def fetch(boxed: list[Any]) -> Any:
    """The object behind a reference. The list keeps Ray from resolving it before the call."""
    import ray

    return ray.get(boxed[0])


def describe_error(error: Exception) -> str:
    """The start of a Ray error's text, on one line."""
    return " ".join(str(error).split())[:300]


def export_metrics() -> None:
    """Export this process's counters as metrics of the Ray cluster."""
    from ray.util.metrics import Counter

    counters: dict[str, Any] = {}

    def count(name: str, amount: float, labels: Mapping[str, str]) -> None:
        if name not in counters:
            description, tags = metrics.DESCRIPTIONS[name], tuple(sorted(labels))
            counters[name] = Counter(name, description=description, tag_keys=tags)
        counters[name].inc(amount, tags=dict(labels))

    metrics.send_to(count)


class WorkerActor:
    """Body of the Ray actor. It builds its worker at the first unit and returns errors as values.

    An error that is returned keeps its type and text; raised through Ray it would arrive as a
    traceback. `make_worker` is fetched inside `run`, so that a worker that cannot be unpickled here
    fails its unit and does not kill the actor.
    """

    def __init__(self) -> None:
        self._worker: Callable[[Any], Any] | None = None
        self._building = threading.Lock()
        console.install()
        export_metrics()

    def ready(self) -> tuple[bool, None, metrics.Counts]:
        """Return as soon as the actor runs. Same shape as `run`."""
        return True, None, {}

    def run(self, make_worker: list[Any], unit: Any) -> tuple[bool, Any, metrics.Counts]:
        """Run a unit: (True, result, counters) or (False, error, counters)."""
        try:
            with self._building:
                if self._worker is None:
                    self._worker = fetch(make_worker)()
            return True, self._worker(unit), metrics.drain()
        except D2PruneError as error:
            return False, error, metrics.drain()
