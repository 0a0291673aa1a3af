"""How embedding goes, in one line for whoever watches: from the counters of `execution.metrics`."""

import time
from collections.abc import Callable

from pipeline.execution import metrics

_SHOWN = (
    metrics.SAMPLES_EMBEDDED,
    metrics.SAMPLES_REJECTED,
    metrics.EMBED_BUSY_SECONDS,
    metrics.EMBED_WAIT_SECONDS,
)


def pace() -> Callable[[], str]:
    """A function that says what was done since now, such as `812 samples/s, model busy 97 %, waiting 2 %, 14 rejected`.

    Shares are of the time that the model computed or waited for samples. Empty until a unit is done.
    """
    start, before = time.monotonic(), [metrics.total(name) for name in _SHOWN]

    def line() -> str:
        embedded, rejected, busy, wait = (metrics.total(name) - was for name, was in zip(_SHOWN, before, strict=True))
        if not embedded + rejected:
            return ""
        rate = embedded / max(time.monotonic() - start, 1e-9)
        shares = f"model busy {busy / (busy + wait):.0%}, waiting {wait / (busy + wait):.0%}, " if busy + wait else ""
        return f"{rate:,.0f} samples/s, {shares}{rejected:,.0f} rejected"

    return line
