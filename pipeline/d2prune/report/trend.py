"""The runs of a chain, one point each, as each report hands them on to the next.

`report/<fingerprint>/trend.json`, in the folder of the page, holds the points of all runs up to its own,
so that the curve outlives pruned runs. The date is that of the page.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from d2prune import store
from d2prune.store import artifacts

log = logging.getLogger(__name__)

FILE = "trend.json"
_MOST_POINTS = 1_000


@dataclass(frozen=True)
class Point:
    """One run of a chain; measures are None where they are not known.

    Attributes:
        run_id: as `d2prune runs` prints it.
        date: when its page was made.
        samples: in the pool.
        kept: of these.
        score: name of the score that the filter started from.
        mean_score: mean of it over the kept samples.
        copies: share of the kept samples that have a kept near-copy.
        recall: of the graph.
        settings: what differs from the run before.
    """

    run_id: str
    date: str
    samples: int
    kept: int
    score: str
    mean_score: float | None
    copies: float | None
    recall: float | None
    settings: tuple[str, ...] = ()

    def mean(self, score: str) -> float | None:
        """The mean of a score over the kept samples; None if it is not known."""
        return self.mean_score if self.score == score else None


def read_points(report: str) -> list[Point]:
    """The points up to the run of a page, oldest first; empty if they are not known.

    Args:
        report: URL of the page; empty if it is not known.
    """
    if not report:
        return []
    url = store.join(report.rpartition("/")[0], FILE)
    try:
        return [_parse(point) for point in artifacts.read_json(url)["points"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning("%s: damaged, ignored (%s)", store.redact(url), error)
        return []


def write_points(report: str, points: Sequence[Point]) -> None:
    """Write the points up to the run of a page, oldest first."""
    values = [asdict(point) for point in points[-_MOST_POINTS:]]
    artifacts.write_json(store.join(report.rpartition("/")[0], FILE), {"points": values})


def extend(points: Sequence[Point], own: Point) -> tuple[Point, ...]:
    """The points of a run: those of the run before, and its own, last and once.

    A run that was pruned and runs again may be among those before it.
    """
    return (*(point for point in points if point.run_id != own.run_id), own)


def known(value: float | None) -> float | None:
    """A measure as a point holds it: None in place of nan."""
    return None if value is None or not math.isfinite(value) else float(value)


def _parse(point: dict[str, object]) -> Point:
    return Point(**point | {"settings": tuple(point["settings"])})  # type: ignore[arg-type]
