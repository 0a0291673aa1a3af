"""Counters that show how a run is going; never part of a result.

A worker calls `add`. Sums are kept per process. An executor collects the sums of its workers in the
driver (`drain` in the worker, `merge` in the driver) for the progress display, and forwards every
`add` to the metrics system of its cluster (`send_to`). The names are fixed because dashboards query
them; see docs/operations.md.
"""

import threading
from collections.abc import Callable, Mapping

SAMPLES_READ = "d2prune_samples_read_total"
SAMPLES_EMBEDDED = "d2prune_samples_embedded_total"
SAMPLES_REJECTED = "d2prune_samples_rejected_total"
SAMPLES_DECODED_REMOTELY = "d2prune_samples_decoded_remotely_total"
EMBED_BUSY_SECONDS = "d2prune_embed_busy_seconds_total"
EMBED_WAIT_SECONDS = "d2prune_embed_wait_seconds_total"
UNITS_PLANNED = "d2prune_units_planned_total"
UNITS_DONE = "d2prune_units_done_total"
WORKERS_LOST = "d2prune_workers_lost_total"

DESCRIPTIONS = {
    SAMPLES_READ: "Samples read from the input.",
    SAMPLES_EMBEDDED: "Samples embedded.",
    SAMPLES_REJECTED: "Samples not embedded, by reason.",
    SAMPLES_DECODED_REMOTELY: "Samples that another machine decoded for their worker.",
    EMBED_BUSY_SECONDS: "Time that the model's device was computing.",
    EMBED_WAIT_SECONDS: "Time that the model waited for decoded samples.",
    UNITS_PLANNED: "Units of work that were not complete when their stage began, by stage.",
    UNITS_DONE: "Units of work finished, by stage.",
    WORKERS_LOST: "Workers that ended or left the cluster during a unit.",
}

_Key = tuple[str, tuple[tuple[str, str], ...]]

Counts = dict[_Key, float]
"""(name, sorted labels) -> sum."""

Sink = Callable[[str, float, Mapping[str, str]], None]

_lock = threading.Lock()
_totals: Counts = {}
_drained: Counts = {}
_sink: Sink | None = None


def add(name: str, amount: float = 1, **labels: str) -> None:
    """Add to a counter.

    Args:
        name: one of `DESCRIPTIONS`.
        amount: not negative.
        **labels: such as the reason of a reject.
    """
    if amount <= 0:
        return
    with _lock:
        _add_to_total((name, tuple(sorted(labels.items()))), amount)
    if _sink is not None:
        _sink(name, amount, labels)


def _add_to_total(key: _Key, amount: float) -> None:
    _totals[key] = _totals.get(key, 0) + amount


def total(name: str) -> float:
    """The sum of a counter over all labels, merged counts included."""
    with _lock:
        return sum(amount for (key, _), amount in _totals.items() if key == name)


def drain() -> Counts:
    """What was added since the last `drain`."""
    with _lock:
        new = {key: amount - _drained.get(key, 0) for key, amount in _totals.items()}
        _drained.update(_totals)
    return {key: amount for key, amount in new.items() if amount}


def merge(counts: Counts) -> None:
    """Add what another process drained. It is not forwarded: that process has done so itself."""
    with _lock:
        for key, amount in counts.items():
            _add_to_total(key, amount)


def send_to(sink: Sink | None) -> None:
    """Forward every `add` to `sink(name, amount, labels)`; None stops it."""
    global _sink
    _sink = sink
