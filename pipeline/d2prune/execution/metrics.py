"""Counters for people to watch while a run goes on; never part of a result.

A worker calls `add`. Sums are kept per process; an executor brings those of its workers to the
driver (`drain` there, `merge` here), where progress shows them, and passes every `add` on to
whatever its cluster has for metrics (`send_to`). The names are fixed: dashboards ask for them. See
docs/operations.md.
"""

import threading
from collections.abc import Callable, Mapping

SAMPLES_READ = "d2prune_samples_read_total"
SAMPLES_EMBEDDED = "d2prune_samples_embedded_total"
SAMPLES_REJECTED = "d2prune_samples_rejected_total"
SAMPLES_DECODED_REMOTELY = "d2prune_samples_decoded_remotely_total"
EMBED_BUSY_SECONDS = "d2prune_embed_busy_seconds_total"
EMBED_WAIT_SECONDS = "d2prune_embed_wait_seconds_total"
UNITS_DONE = "d2prune_units_done_total"

DESCRIPTIONS = {
    SAMPLES_READ: "Samples met in the input.",
    SAMPLES_EMBEDDED: "Samples embedded.",
    SAMPLES_REJECTED: "Samples not embedded, by reason.",
    SAMPLES_DECODED_REMOTELY: "Samples that another machine decoded for their worker.",
    EMBED_BUSY_SECONDS: "Time that the model's device computed.",
    EMBED_WAIT_SECONDS: "Time that the model waited for decoded samples.",
    UNITS_DONE: "Units of work finished, by stage.",
}

Counts = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""(name, sorted labels) -> sum."""

_lock = threading.Lock()
_totals: Counts = {}
_drained: Counts = {}
_sink: Callable[[str, float, Mapping[str, str]], None] | None = None


def add(name: str, amount: float = 1, **labels: str) -> None:
    """Count; `name` is one of `DESCRIPTIONS`, amounts are not negative."""
    if amount <= 0:
        return
    with _lock:
        _count((name, tuple(sorted(labels.items()))), amount)
    if _sink is not None:
        _sink(name, amount, labels)


def _count(key: tuple[str, tuple[tuple[str, str], ...]], amount: float) -> None:
    _totals[key] = _totals.get(key, 0) + amount


def total(name: str) -> float:
    """The sum of `name` over all labels, in this process and in those that were merged."""
    with _lock:
        return sum(amount for (key, _), amount in _totals.items() if key == name)


def drain() -> Counts:
    """What was added since the last `drain`."""
    with _lock:
        new = {key: amount - _drained.get(key, 0) for key, amount in _totals.items()}
        _drained.update(_totals)
    return {key: amount for key, amount in new.items() if amount}


def merge(counts: Counts) -> None:
    """Add what another process drained; it has passed that on itself."""
    with _lock:
        for key, amount in counts.items():
            _count(key, amount)


def send_to(sink: Callable[[str, float, Mapping[str, str]], None] | None) -> None:
    """Pass every `add` on to `sink(name, amount, labels)`."""
    global _sink
    _sink = sink
