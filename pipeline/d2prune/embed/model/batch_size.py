"""`embed.batch_size: auto`: samples per forward pass, found while working. No device, no files: rates in, a size out.

Every batch is real work, so nothing is spent on trying: it starts small and doubles as long as that
makes the model faster by `_GAIN`, up to a limit or to what the device's memory takes. It is found
once per worker. Sizes follow from the clock, so the last bits of embeddings do too: who needs the
same bytes again gives a number.
"""

import logging
from typing import Literal

log = logging.getLogger(__name__)

_FIRST = 16
_GAIN = 1.05
# Batches of each size that are timed, after one that is not: a device chooses its kernels at the
# first of a shape.
_TIMED = 2


def limit(batch_size: int | Literal["auto"], device: str) -> int:
    """The largest batch there may be, which memory is set aside for.

    A ViT-B/32 on a GPU gains nothing beyond some hundred samples, and a CPU nothing beyond some dozen.
    """
    if batch_size != "auto":
        return batch_size
    return 1024 if device == "cuda" else 128


class BatchSize:
    """One worker's batch size.

    Attributes:
        size: of the next batch.
    """

    def __init__(self, batch_size: int | Literal["auto"], limit: int) -> None:
        """A number stays what it is; `auto` begins at 16, or at `limit` if that is less."""
        self._limit = limit
        self._settled = batch_size != "auto"
        self.size = min(_FIRST, limit) if batch_size == "auto" else batch_size
        self._best = 0.0
        self._seconds: list[float] = []

    def saw(self, rows: int, seconds: float, fits: int | None) -> None:
        """Learn from a batch that is done.

        Args:
            rows: samples in it.
            seconds: that the device worked on it.
            fits: samples that the device's memory takes at a time, where a batch did not fit.
        """
        if self._settled:
            return
        if fits is not None and fits < self.size:
            self._settle(fits)
        elif rows == self.size:
            self._seconds.append(seconds)
            if len(self._seconds) > _TIMED:
                self._compare(rows / max(min(self._seconds[1:]), 1e-9))

    def _compare(self, rate: float) -> None:
        self._seconds = []
        if rate < _GAIN * self._best:
            self._settle(self.size // 2)
        elif self.size == self._limit:
            self._settle(self.size)
        else:
            self._best, self.size = rate, min(2 * self.size, self._limit)

    def _settle(self, size: int) -> None:
        self.size, self._settled = size, True
        log.info("embed: batches of %d samples from here on", size)
