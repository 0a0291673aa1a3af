"""The explorer's data API: requests in, JSON values and images out; no HTTP."""

import contextlib
import dataclasses
import math
import threading
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import D2PruneError, UserError
from d2prune.explore.explain import explain
from d2prune.explore.sample_index import Query, SampleIndex
from d2prune.parts.files import SAMPLES
from d2prune.report.thumbnails import ImageSource, read_image, small_webp
from d2prune.runs.finished import FinishedRun

MAX_ROWS = 200
_MAX_CAPTION_LENGTH = 2_000
_IMAGE_SIDES = {"small": 160, "large": 640}
_MAX_PIXELS = 100_000_000
# JavaScript numbers are exact up to here.
_MAX_SAFE_INTEGER = 2**53


class Explorer:
    """Answers requests about one run; starts to read the run in the background."""

    def __init__(self, run: FinishedRun, urls: Mapping[str, str] | None = None) -> None:
        """Start reading.

        Args:
            run: the run.
            urls: shard name -> current URL of its tar; default: the URLs that the run recorded.
        """
        self.run = run
        self._urls = run.urls if urls is None else urls
        self._lock = threading.Lock()
        self._cached_image = lru_cache(maxsize=2_000)(self._make_image)
        threading.Thread(target=self._preload, daemon=True).start()

    def _preload(self) -> None:
        # An error here occurs again, and is reported, when a request needs the same data.
        # RuntimeError: the interpreter is shutting down.
        with contextlib.suppress(D2PruneError, RuntimeError):
            self.index.load_texts()
            # Last, since clusters take longest and only their own filter waits for them.
            self.index.clusters  # noqa: B018

    @property
    def index(self) -> SampleIndex:
        """The pool's columns; the first caller reads them, the others wait."""
        with self._lock:
            return self._index

    @cached_property
    def _index(self) -> SampleIndex:
        return SampleIndex(self.run)

    def describe_run(self) -> dict[str, Any]:
        """The run, for the page's header and controls."""
        run, index = self.run, self.index
        ranking, difficulty_N = index.ranking, index.difficulty_N
        kept = int(ranking.kept_N.sum())
        return {
            "work_dir": store.redact(run.work_dir),
            "run": run.select.fingerprint,
            "samples": len(index),
            "kept": kept,
            "rejected": run.embed.counters.get("rejected", 0),
            "fraction": kept / len(index) if len(index) else 0.0,
            "max_fraction": float(ranking.ranked_N.mean()) if len(index) else 0.0,
            "score": run.score_name,
            "mean_score": _mean(difficulty_N[ranking.kept_N]) - run.offset,
            "threshold": ranking.threshold,
            "reasons": index.counts(),
        }

    def search(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        """One page of search results.

        Raises:
            UserError: a parameter has an unexpected value.
        """
        cluster = None
        if parameters.get("cluster"):
            cluster = _parse_count(parameters, "cluster", 0, 1 << 15)
        query = Query(
            text=parameters.get("q", "")[:500],
            reason=parameters.get("reason", ""),
            cluster=cluster,
            low=_parse_number(parameters, "low"),
            high=_parse_number(parameters, "high"),
            sort=parameters.get("sort", "selection"),  # type: ignore[arg-type]
            descending=parameters.get("order", "down") != "up",
        )
        start = _parse_count(parameters, "start", 0, 1 << 60)
        limit = _parse_count(parameters, "limit", 48, MAX_ROWS)
        found = self.index.find(query)
        return {"total": len(found), "rows": self._rows(found[start : start + limit])}

    def clusters(self) -> dict[str, Any]:
        """The report's clusters, for the filter; waits until they are computed."""
        names = ("number", "name", "samples", "kept")
        rows = [dict(zip(names, row, strict=True)) for row in self.index.cluster_counts()]
        return {"clusters": rows, "complete": self.index.clusters.complete}

    def preview(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        """The selection at another fraction.

        Raises:
            UserError: the fraction is not in (0, 1].
        """
        fraction = _parse_number(parameters, "fraction")
        limit = _parse_count(parameters, "limit", 12, MAX_ROWS)
        if fraction is None:
            raise UserError("fraction: found nothing; expected a number")
        preview = self.index.preview(fraction)
        return {
            "size": preview.size,
            "limited": preview.limited,
            "threshold": _to_json(preview.threshold),
            "mean_score": preview.mean_score,
            "added": {"total": len(preview.added), "rows": self._rows(preview.added[:limit])},
            "removed": {"total": len(preview.removed), "rows": self._rows(preview.removed[:limit])},
        }

    def explain(self, position: int) -> dict[str, Any]:
        """One sample, explained.

        Raises:
            UserError: there is no such position.
        """
        self._check_position(position)
        explanation = explain(self.run, position, self.index.ranking)
        suppressed_by = explanation.suppressed_by
        return {
            **_to_json(dataclasses.asdict(explanation)),
            "score_name": self.run.score_name,
            "offset": self.run.offset,
            "gammas": self.run.gamma_texts,
            "fields": list(self.run.fields),
            "suppressed_by": suppressed_by.position if suppressed_by else None,
            "suppressed": [neighbour.position for neighbour in explanation.suppressed],
            "cluster": self.index.cluster_of(position),
        }

    def image(self, position: int, size: str) -> bytes:
        """The sample's image as WebP; empty if there is none.

        Raises:
            UserError: there is no such position or size.
        """
        self._check_position(position)
        if size not in _IMAGE_SIDES:
            raise UserError(f"size: found {size!r}; expected one of {', '.join(_IMAGE_SIDES)}")
        return self._cached_image(position, _IMAGE_SIDES[size])

    def _make_image(self, position: int, side: int) -> bytes:
        row = self.run.parts.take(np.array([position]), SAMPLES, ["shard", "offset", "size"]).to_pylist()[0]
        url = self._urls.get(row["shard"])
        if url is None or row["offset"] is None:
            return b""
        # Always re-encoded, so the browser never receives the bytes of the pool.
        return small_webp(read_image(ImageSource(url, row["offset"], row["size"] or 0)), _MAX_PIXELS, side)

    def _rows(self, positions: NDArray[np.int64]) -> list[dict[str, Any]]:
        return [
            _to_json({**row, "caption": (row["caption"] or "")[:_MAX_CAPTION_LENGTH]})
            for row in self.index.rows(positions)
        ]

    def _check_position(self, position: int) -> None:
        if not 0 <= position < len(self.run):
            raise UserError(f"sample: found {position}; expected a position from 0 to {len(self.run) - 1}")


def _mean(values: NDArray[np.float32]) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else 0.0


def _parse_number(parameters: Mapping[str, str], name: str) -> float | None:
    """A finite number; None if the parameter is missing or empty."""
    text = parameters.get(name, "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{name}: found {text[:50]!r}; expected a number")
    return value


def _parse_count(parameters: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A whole number, at most `most`."""
    text = parameters.get(name, str(default))
    if not text.isdecimal():
        raise UserError(f"{name}: found {text[:50]!r}; expected a whole number")
    digits = text.lstrip("0") or "0"
    # Python refuses to convert thousands of digits.
    return min(int(digits), most) if len(digits) <= len(str(most)) else most


def _to_json(value: Any) -> Any:
    """Convert what JSON or JavaScript lacks: nan to null, large integers and other types to text."""
    if isinstance(value, dict):
        return {name: _to_json(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _MAX_SAFE_INTEGER:
        return str(value)
    return value if value is None or isinstance(value, (str, int)) else str(value)
