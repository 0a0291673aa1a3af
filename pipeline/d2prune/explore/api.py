"""What the explorer's page asks for, as JSON values and pictures: requests in, plain records out, no HTTP."""

import contextlib
import dataclasses
import math
import threading
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from d2prune import store
from d2prune.errors import D2PruneError, UserError
from d2prune.explore.explain import explain
from d2prune.explore.index import Index, Query
from d2prune.parts.files import SAMPLES
from d2prune.report.thumbnails import Source, image_bytes, small_webp
from d2prune.runs.finished import FinishedRun

MAX_ROWS = 200
_CAPTION = 2_000
_SIDES = {"small": 160, "large": 640}
_MAX_PIXELS = 100_000_000


class Explorer:
    """Answers about one run; the index is read in the background as soon as one is made."""

    def __init__(self, run: FinishedRun, urls: Mapping[str, str] | None = None) -> None:
        """Args: run, and shard name -> URL where the tars lie now; default: where they lay when the run read them."""
        self.run = run
        self._urls = run.urls if urls is None else urls
        self._lock = threading.Lock()
        self._picture = lru_cache(maxsize=2_000)(self._make_picture)
        threading.Thread(target=self._ahead, daemon=True).start()

    def _ahead(self) -> None:
        """What fails here fails again, and is told, when it is asked for; or the program is ending."""
        with contextlib.suppress(D2PruneError, RuntimeError):
            self._load()

    def _load(self) -> None:
        self.index.load_texts()
        # Last, as they take longest and nothing but their own filter waits for them.
        self.index.clusters  # noqa: B018

    @property
    def index(self) -> Index:
        """The pool's columns; the first to ask reads them, the others wait."""
        with self._lock:
            return self._index

    @cached_property
    def _index(self) -> Index:
        return Index(self.run)

    def about(self) -> dict[str, Any]:
        """The run: what the page's head and its controls need."""
        run, index = self.run, self.index
        kept = int(index.line.kept_N.sum())
        score_N = index.difficulty_N
        return {
            "work_dir": store.redact(run.work_dir),
            "run": run.select.fingerprint,
            "samples": len(index),
            "kept": kept,
            "rejected": run.embed.counters.get("rejected", 0),
            "fraction": kept / len(index) if len(index) else 0.0,
            "most": float(index.line.ranked_N.mean()) if len(index) else 0.0,
            "score": run.score_name,
            "low": float(score_N.min()) - run.offset if len(index) else 0.0,
            "high": float(score_N.max()) - run.offset if len(index) else 0.0,
            "mean_score": _mean(score_N[index.line.kept_N]) - run.offset,
            "threshold": index.line.threshold,
            "groups": run.select.params.get("groups"),
            "reasons": index.counts(),
        }

    def samples(self, asked: Mapping[str, str]) -> dict[str, Any]:
        """One page of a search.

        Raises:
            UserError: a value that is none of those expected.
        """
        query = Query(
            text=asked.get("q", "")[:500],
            reason=asked.get("reason", ""),
            cluster=_count(asked, "cluster", 0, 1 << 15) if asked.get("cluster") else None,
            low=_number(asked, "low"),
            high=_number(asked, "high"),
            sort=asked.get("sort", "selection"),  # type: ignore[arg-type]
            descending=asked.get("order", "down") != "up",
        )
        start, limit = _count(asked, "start", 0, 1 << 60), _count(asked, "limit", 48, MAX_ROWS)
        found = self.index.find(query)
        return {"total": len(found), "rows": self._rows(found[start : start + limit])}

    def clusters(self) -> dict[str, Any]:
        """The report's clusters, for the filter; waits until they are read."""
        names = ("number", "name", "samples", "kept")
        rows = [dict(zip(names, row, strict=True)) for row in self.index.cluster_counts()]
        return {"clusters": rows, "whole": self.index.clusters.whole}

    def cut(self, asked: Mapping[str, str]) -> dict[str, Any]:
        """The pool at another fraction.

        Raises:
            UserError: the fraction is not in (0, 1].
        """
        fraction, limit = _number(asked, "fraction"), _count(asked, "limit", 12, MAX_ROWS)
        if fraction is None:
            raise UserError("fraction: expected a number")
        cut = self.index.cut(fraction)
        return {
            "size": cut.size,
            "limited": cut.limited,
            "threshold": cut.threshold,
            "mean_score": cut.mean_score,
            "enters": {"total": len(cut.enters), "rows": self._rows(cut.enters[:limit])},
            "leaves": {"total": len(cut.leaves), "rows": self._rows(cut.leaves[:limit])},
        }

    def sample(self, position: int) -> dict[str, Any]:
        """One sample, explained.

        Raises:
            UserError: there is no such position.
        """
        self._check(position)
        told = explain(self.run, position, self.index.line)
        by = told.suppressed_by
        return {
            **_plain(dataclasses.asdict(told)),
            "why": told.why,
            "score_name": self.run.score_name,
            "offset": self.run.offset,
            "fields": list(self.run.fields),
            "suppressed_by": by.position if by else None,
            "cluster": self.index.cluster_of(position),
            "suppressed": [n.position for n in told.suppressed],
        }

    def picture(self, position: int, size: str) -> bytes:
        """A WebP of the sample's image, empty where there is none.

        Raises:
            UserError: there is no such position or size.
        """
        self._check(position)
        if size not in _SIDES:
            raise UserError(f"size: got {size!r}, expected one of {', '.join(_SIDES)}")
        return self._picture(position, _SIDES[size])

    def _make_picture(self, position: int, side: int) -> bytes:
        row = self.run.parts.take(np.array([position]), SAMPLES, ["shard", "offset", "size"]).to_pylist()[0]
        url = self._urls.get(row["shard"])
        if url is None or row["offset"] is None:
            return b""
        # Re-encoded: whatever the file is, the browser gets a picture of ours.
        return small_webp(image_bytes(Source(url, row["offset"], row["size"] or 0)), _MAX_PIXELS, side)

    def _rows(self, positions: Any) -> list[dict[str, Any]]:
        rows = self.index.rows(np.asarray(positions, np.int64))
        return [_plain({**row, "caption": (row["caption"] or "")[:_CAPTION]}) for row in rows]

    def _check(self, position: int) -> None:
        if not 0 <= position < len(self.run):
            raise UserError(f"sample {position}: expected a position from 0 to {len(self.run) - 1}")


def _mean(values: Any) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else 0.0


def _number(asked: Mapping[str, str], name: str) -> float | None:
    text = asked.get(name, "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{name}: got {text[:50]!r}, expected a number")
    return value


def _count(asked: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = asked.get(name, str(default))
    if not text.isdecimal():
        raise UserError(f"{name}: got {text[:50]!r}, expected a whole number")
    return min(int(text), most)


def _plain(value: Any) -> Any:
    """JSON has no NaN, and dates and bytes no form: the first become null, the others text."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    # Exact scores have more digits than a browser's numbers: as text they stay what they are.
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53:
        return str(value)
    return value if value is None or isinstance(value, (str, int)) else str(value)
