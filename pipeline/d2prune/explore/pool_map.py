"""The map of a pool: a layout of up to 100,000 of its samples, and which samples an outline contains.

The layout is read from the work_dir, or else computed in the background, once, and stored there where
that is possible. S samples on the map, N in the pool, V corners of an outline.
"""

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.threads import available_cores
from d2prune.errors import D2PruneError, UserError
from d2prune.explore.query import Outline
from d2prune.explore.sample_index import SampleIndex
from d2prune.knn.graph_layout import require_layout
from d2prune.parts.map_file import MapLayout, read_layout, write_layout
from d2prune.runs.finished import FinishedRun

log = logging.getLogger(__name__)

MAX_POINTS = 100_000
# 640,000 rows of embeddings, of which the points are drawn.
_ROW_GROUPS = 64
_SEED = 0
_READ_ROWS = 8_192
# The page, which asks every second, shows a failure for that long.
_RETRY_S = 10.0


class PoolMap:
    """The map of the pools of one graph artifact, which runs with other gammas or fractions share."""

    def __init__(self, run: FinishedRun, max_points: int = MAX_POINTS) -> None:
        """Compute nothing yet."""
        self._run, self._max_points = run, max_points
        self._lock, self._ready = threading.Lock(), threading.Event()
        self._started = False
        self._step, self._done = "", 0.0
        self._failure: D2PruneError | None = None
        self._failed_at: float | None = None
        self._layout: MapLayout | None = None

    def start(self) -> None:
        """Read or compute the layout in the background, unless it is there or in progress.

        Some time after a failure it starts again: storage may answer, or the extra be installed, by now.
        """
        with self._lock:
            if self._failed_at is not None and time.monotonic() - self._failed_at > _RETRY_S:
                self._failed_at = None
                self._started, self._failure = False, None
                self._ready.clear()
            if not self._started:
                self._started = True
                threading.Thread(target=self._work, daemon=True).start()

    def progress(self) -> Mapping[str, Any]:
        """`state` (`working`, `ready` or `failed`), what is being done, the share done, and the error."""
        if not self._ready.is_set():
            return {"state": "working", "step": self._step, "done": self._done}
        if self._layout is None:
            return {"state": "failed", "error": str(self._failure)}
        return {"state": "ready", "points": len(self._layout.positions_S), "samples": len(self._run)}

    def layout(self) -> MapLayout:
        """The layout; waits until it is computed.

        Raises:
            D2PruneError: it cannot be.
        """
        self.start()
        self._ready.wait()
        found, failure = self._layout, self._failure
        if found is None:
            raise failure or D2PruneError("the map is computed again; ask once more")
        return found

    def inside(self, outline: Outline) -> NDArray[np.bool_]:
        """Which samples of the pool are on the map and inside an outline, bool [N]."""
        found = self.layout()
        inside_N = np.zeros(len(self._run), bool)
        inside_N[found.positions_S[contains(outline, found.xy_S2)]] = True
        return inside_N

    def _work(self) -> None:
        try:
            self._layout = self._read_or_compute()
        except D2PruneError as error:
            self._failure = error
        except Exception:
            log.exception("explore: the map failed")
            self._failure = D2PruneError("internal error; see the terminal")
        finally:
            self._failed_at = time.monotonic() if self._layout is None else None
            self._ready.set()

    def _read_or_compute(self) -> MapLayout:
        run = self._run
        found = read_layout(run.work_dir, run.graph.fingerprint, len(run))
        if found is None:
            found = self._compute()
            write_layout(run.work_dir, run.graph.fingerprint, found)
        return found

    def _compute(self) -> MapLayout:
        # Import torch, which takes seconds that the first page would wait for.
        from d2prune.knn import layout as kernel
        from d2prune.report.random_sample import draw_positions

        positions_S = draw_positions(self._run.parts.spans, self._max_points, _ROW_GROUPS, _SEED)
        require_layout(len(positions_S), "the map")
        self._report("reading embeddings", 0.0)
        short_SC = self._read_points(positions_S)
        xy_S2 = kernel.layout(short_SC, _SEED, available_cores(), self._report)
        return MapLayout(positions_S, xy_S2)

    def _read_points(self, positions_S: NDArray[np.int64]) -> NDArray[np.float32]:
        """Features in fewer dimensions, block by block: all of 1,536 would take 600 MB and copies."""
        from d2prune.knn import layout as kernel
        from d2prune.knn.features import features

        run = self._run
        if any(file_is_missing(run, unit) for unit in range(len(run.embed.units))):
            raise UserError("map: found no embeddings; expected those that the graph was built from")

        def read(rows: NDArray[np.int64]) -> NDArray[np.float32]:
            return features(run.features, *run.parts.take_vectors(rows, run.embeddings_file))

        n = len(positions_S)
        if not n:
            return np.zeros((0, 1), np.float32)
        chosen = np.sort(np.random.default_rng(_SEED).permutation(n)[:_READ_ROWS])
        axes_DC = kernel.principal_axes(read(positions_S[chosen]), _SEED)
        blocks = []
        for start in range(0, n, _READ_ROWS):
            blocks.append(kernel.shorten(read(positions_S[start : start + _READ_ROWS]), axes_DC))
            self._report("reading embeddings", min(start + _READ_ROWS, n) / n)
        return np.concatenate(blocks)

    def _report(self, step: str, done: float) -> None:
        self._step, self._done = step, done


def file_is_missing(run: FinishedRun, unit: int) -> bool:
    """Whether an embed unit lacks the embeddings that the graph was built from."""
    return run.parts.vector_bytes(unit, run.embeddings_file) is None


def contains(outline: Outline, xy_S2: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Which points are inside an outline, by the even-odd rule, bool [S].

    All numbers are whole and below 2^17, so that products are exact here and in JavaScript (`map.js`),
    which must agree on every point.
    """
    # By height, so that the points which an edge may pass are a slice.
    order_S = np.argsort(xy_S2[:, 1], kind="stable")
    x_S, y_S = xy_S2[order_S].T.astype(np.int64)
    inside_S = np.zeros(len(xy_S2), bool)
    for (ax, ay), (bx, by) in zip(outline, (*outline[1:], *outline[:1]), strict=True):
        low, high = np.searchsorted(y_S, sorted((ay, by)))
        x_M, y_M = x_S[low:high], y_S[low:high]
        # The edge is to the right of the point where it crosses the point's height.
        side_M = (bx - ax) * (y_M - ay) - (x_M - ax) * (by - ay)
        inside_S[order_S[low:high]] ^= (side_M > 0) if by > ay else (side_M < 0)
    return inside_S


def pack_points(found: MapLayout, index: SampleIndex) -> bytes:
    """What the page draws: columns one after the other, little-endian, 20 bytes a sample.

    float64 position, float32 score without the offset, uint16 x, uint16 y, int16 cluster (-1: none),
    uint8 reason (into `reasons` of the map), uint8 kept.
    """
    rows = found.positions_S
    columns = (
        rows.astype("<f8"),
        (index.difficulty_N[rows] - np.float32(index.run.offset)).astype("<f4"),
        found.xy_S2[:, 0].astype("<u2"),
        found.xy_S2[:, 1].astype("<u2"),
        index.clusters.label_N[rows].astype("<i2"),
        index.reason_codes(rows).astype("u1"),
        index.ranking.kept_N[rows].astype("u1"),
    )
    return b"".join(np.ascontiguousarray(column).tobytes() for column in columns)
