"""`embed.batch_size: auto`: find the number of samples per forward pass while working.

Pure: no device, no files. Every batch is real work, so nothing is spent on measuring. The size
starts small and doubles as long as that makes the model faster by a factor of `_MIN_GAIN`, up to a
limit or to what fits into the device's memory. Each worker finds its size once. Sizes depend on
timing, and the last bits of embeddings depend on sizes: for reproducible bytes, configure a number.
"""

import logging
from typing import Literal

log = logging.getLogger(__name__)

_INITIAL_SIZE = 16
_MIN_GAIN = 1.05
# Batches of each size that are timed, after one that is not: a device selects its kernels during the
# first batch of a shape.
_TIMED_BATCHES = 2


def max_batch_size(batch_size: int | Literal["auto"], device: str) -> int:
    """Return the largest possible batch, for which memory is reserved.

    A ViT-B/32 gains nothing beyond a few hundred samples on a GPU and a few dozen on a CPU.
    """
    if batch_size != "auto":
        return batch_size
    return 1024 if device == "cuda" else 128


class BatchSizer:
    """Chooses one worker's batch size.

    Attributes:
        size: of the next batch.
    """

    def __init__(self, batch_size: int | Literal["auto"], limit: int) -> None:
        """Start at 16, or at `limit` if that is less, for `auto`; a number never changes."""
        self._limit = limit
        self._is_fixed = batch_size != "auto"
        self.size = min(_INITIAL_SIZE, limit) if batch_size == "auto" else batch_size
        self._best = 0.0
        self._seconds: list[float] = []

    def record(self, rows: int, seconds: float, max_rows: int | None) -> None:
        """Take a completed batch into account.

        Args:
            rows: samples in it.
            seconds: that the device worked on it.
            max_rows: samples that fit into the device's memory at a time; None if all batches fitted.
        """
        if self._is_fixed:
            return
        if max_rows is not None and max_rows < self.size:
            self._fix(max_rows)
        elif rows == self.size:
            self._seconds.append(seconds)
            if len(self._seconds) > _TIMED_BATCHES:
                self._compare(rows / max(min(self._seconds[1:]), 1e-9))

    def _compare(self, rate: float) -> None:
        self._seconds = []
        if rate < _MIN_GAIN * self._best:
            self._fix(self.size // 2)
        elif self.size == self._limit:
            self._fix(self.size)
        else:
            self._best, self.size = rate, min(2 * self.size, self._limit)

    def _fix(self, size: int) -> None:
        self.size, self._is_fixed = size, True
        log.info("embed: batch size fixed at %d samples", size)
