"""How embedding goes, in a few words for whoever watches: from the counters of `execution.metrics`."""

from collections.abc import Callable

from d2prune.execution import metrics

_SHOWN = (
    metrics.SAMPLES_REJECTED,
    metrics.EMBED_BUSY_SECONDS,
    metrics.EMBED_WAIT_SECONDS,
    metrics.SAMPLES_DECODED_REMOTELY,
    metrics.SAMPLES_READ,
)


def pace() -> Callable[[], str]:
    """A function that says what was done since now, such as `model busy 97%, waiting 3%, 14 rejected`.

    Shares are of the time that models computed or waited for samples. Empty until a unit is done.
    """
    before = [metrics.total(name) for name in _SHOWN]

    def line() -> str:
        rejected, busy, wait, remote, read = (
            metrics.total(name) - was for name, was in zip(_SHOWN, before, strict=True)
        )
        said = [f"{rejected:,.0f} rejected"] if rejected else []
        if remote:
            said.insert(0, f"{remote / max(remote, read):.0%} decoded remotely")
        if busy + wait:
            said.insert(0, f"model busy {busy / (busy + wait):.0%}, waiting {wait / (busy + wait):.0%}")
        return ", ".join(said)

    return line
