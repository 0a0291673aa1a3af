"""Time left of one stage, from the moments at which its units finished; nothing if that is a guess.

Work does not run at one speed: workers start for half a minute, the first units load a model, units end
in bursts of as many as there are workers, and a few may take most of the time. So the speed is measured
in three ways: since the start, which is too low by the time of starting; since the first unit ended,
which is too high after a burst; and over the younger half of the units. If they agree the estimate is
their geometric middle. `tests/execution/test_time_left.py` simulates what it is worth.
"""

import itertools
import math
from bisect import bisect_left

_LEAST_SHARE, _LEAST_UNITS = 0.1, 4
_LARGEST_RATIO = 2.0
"""Of the highest to the lowest speed. The middle then differs from either by a factor of at most 1.42."""
_LARGEST_ERROR = 0.3
"""Two standard errors of the mean time between units, as a share of it, including that of the rest."""
_LARGEST_GAP = 0.3
"""Share of the time that passes in the longest wait for a unit: a trace with one is not regular yet."""
_RESOLUTION = 256
"""Moments that are closer than this share of the time since the start are one."""


class TimeLeft:
    """Estimates the time left; units that were complete before do not count."""

    def __init__(self, start: float, finished: int = 0) -> None:
        """Nothing is done yet at time `start`, apart from `finished` units."""
        self._start, self._finished = start, finished
        self._times: list[float] = []
        self._done: list[int] = []

    def record(self, now: float, done: int) -> None:
        """Record how many units are done."""
        new = done - self._finished
        if new <= (self._done[-1] if self._done else 0):
            return
        if len(self._times) > 1 and now - self._times[-2] < (now - self._start) / _RESOLUTION:
            self._times[-1], self._done[-1] = now, new
        else:
            self._times.append(now)
            self._done.append(new)

    def estimate(self, now: float, total: int) -> float | None:
        """Seconds left at time `now` until `total` units are done; None if the trace does not tell."""
        new = self._done[-1] if self._done else 0
        left = total - self._finished - new
        if left <= 0:
            return 0.0 if new else None
        if min(new, left) < max(_LEAST_UNITS, _LEAST_SHARE * (new + left)) or not self._is_regular(now, left):
            return None
        half = bisect_left(self._done, new / 2)
        moments = ((self._start, 0), (self._times[0], self._done[0]), (self._times[half], self._done[half]))
        speeds = [(new - done) / (now - time) for time, done in moments if new > done and now > time]
        if len(speeds) < 3 or max(speeds) > _LARGEST_RATIO * min(speeds):
            return None
        return left / math.sqrt(max(speeds) * min(speeds))

    def _is_regular(self, now: float, left: int) -> bool:
        """Whether the waits between units are alike enough to expect more of their kind."""
        times, done = self._times, self._done
        if len(times) < _LEAST_UNITS:
            return False
        waits = [after - before for before, after in itertools.pairwise(times)]
        waits.append(now - times[-1])
        elapsed = now - times[0]
        if max(waits) > _LARGEST_GAP * max(now - self._start, 1e-9):
            return False
        steps = [after - before for before, after in itertools.pairwise(done)]
        mean = elapsed / sum(steps)
        # Units that ended together share a wait. The variance is that of a unit's time.
        variance = sum((wait - mean * step) ** 2 / step for wait, step in zip(waits, steps, strict=False))
        variance /= len(steps)
        error = 2 * math.sqrt(variance * (1 / sum(steps) + 1 / left))
        return error <= _LARGEST_ERROR * mean
