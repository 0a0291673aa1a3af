"""Notes on embedding for the progress display, from the counters of `execution.metrics`."""

from collections.abc import Callable

from d2prune.execution import metrics

_METRICS = (
    metrics.SAMPLES_REJECTED,
    metrics.EMBED_BUSY_SECONDS,
    metrics.EMBED_WAIT_SECONDS,
    metrics.SAMPLES_DECODED_REMOTELY,
    metrics.SAMPLES_READ,
)


def start_note(first: str = "") -> Callable[[], str]:
    """Return a function that describes the work since now, such as `model busy 97%, waiting 3%, 14 rejected`.

    Shares are of the time that models computed or waited for samples.

    Args:
        first: the note until the first unit is complete.
    """
    before = [metrics.total(name) for name in _METRICS]

    def describe() -> str:
        rejected, busy, wait, remote, read = (
            metrics.total(name) - start for name, start in zip(_METRICS, before, strict=True)
        )
        notes = []
        if busy + wait:
            notes.append(f"model busy {busy / (busy + wait):.0%}, waiting {wait / (busy + wait):.0%}")
        if remote:
            notes.append(f"{remote / max(remote, read):.0%} decoded remotely")
        if rejected:
            notes.append(f"{rejected:,.0f} rejected")
        return ", ".join(notes) or ("" if read else first)

    return describe
