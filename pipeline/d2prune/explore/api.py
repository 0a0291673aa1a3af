"""The explorer's data API: requests in, JSON values, images and files out; no HTTP."""

import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from typing import Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import D2PruneError, UserError
from d2prune.explore import comparison, export
from d2prune.explore.explain import explain
from d2prune.explore.meaning import Meaning
from d2prune.explore.parameters import Parameters, parse_number, parse_page, parse_query, to_json
from d2prune.explore.pool_map import PoolMap, pack_points
from d2prune.explore.query import Query, split_words
from d2prune.explore.recent import Recent
from d2prune.explore.sample_index import Mask, SampleIndex
from d2prune.explore.workspace import Kept, OpenRun, Workspace
from d2prune.inputs.sample_id import normal_uid
from d2prune.parts.files import SAMPLES
from d2prune.report.thumbnails import ImageSource, read_image, small_webp
from d2prune.runs.description import describe_run
from d2prune.runs.finished import FinishedRun, open_selection
from d2prune.runs.selections import Selection
from d2prune.store import schemas

_MAX_CAPTION_LENGTH = 2_000
_IMAGE_SIDES = {"small": 240, "large": 800, "full": 2_400}
_PREVIEW_ROWS = 12
_MAX_GROUPS = 100
_MAX_POSITION_DIGITS = 18


class Explorer:
    """Answers requests about the runs of one work_dir; starts to read the first in the background."""

    def __init__(
        self, run: FinishedRun, urls: Mapping[str, str] | None = None, meaning: Meaning | None = None
    ) -> None:
        """Start reading.

        Args:
            run: the run that is shown first.
            urls: shard name -> current URL of its tar; default: the URLs that each run recorded.
            meaning: searches by meaning; default: with the index inside the work_dir, and the model that
                each run recorded.
        """
        self._urls, self._meaning = urls, meaning or Meaning()
        self.workspace = Workspace(run)
        # By pool, which several runs share; a key that held the run would keep its samples in memory.
        self._images = Recent[bytes](2_000)
        self._coverage_samples = Recent[comparison.CoverageSample | None](2)
        self._maps: dict[str, PoolMap] = {}
        self._maps_lock = threading.Lock()
        self._describe = lru_cache(maxsize=500)(self._describe_selection)
        threading.Thread(target=self._preload, daemon=True).start()

    def _preload(self) -> None:
        # An error here occurs again, and is reported, when a request needs the same data.
        # RuntimeError: the interpreter is shutting down.
        with contextlib.suppress(D2PruneError, RuntimeError):
            self.index.load()
            # Last, since clusters take longest and only their own filter waits for them.
            self.index.clusters  # noqa: B018

    @property
    def index(self) -> SampleIndex:
        """The samples of the run that is shown first."""
        return self.workspace.default.index

    def runs(self) -> dict[str, Any]:
        """The finished selections of the work_dir, newest first."""
        rows = []
        for selection in self.workspace.selections():
            try:
                rows.append(self._describe(selection))
            except D2PruneError as error:
                # Pruned since, or damaged: the others can still be shown.
                rows.append({"name": selection.name, "error": str(error)})
        return {"runs": rows, "default": self.workspace.default.name}

    def _describe_selection(self, selection: Selection) -> dict[str, Any]:
        run = open_selection(self.workspace.default.run.work_dir, selection.fingerprint)
        return dict(to_json(describe_run(selection, run)))

    def comparison_address(self, other: str | None) -> str:
        """The page's address of a comparison of the first run with another selection; empty for None.

        Raises:
            UserError: `other` names no selection.
        """
        if other is None:
            return ""
        default = self.workspace.default
        b = self.workspace.parse(other, default, "--compare")
        return "#/compare?" + urlencode({"run": default.name, "a": default.name, "b": b.spec})

    def describe_run(self, parameters: Parameters) -> dict[str, Any]:
        """One run, for the page's header and controls."""
        opened = self._open(parameters)
        run, index = opened.run, opened.index
        ranking = index.ranking
        kept = int(ranking.kept_N.sum())
        return {
            "work_dir": store.redact(run.work_dir),
            "run": opened.name,
            "samples": len(index),
            "kept": kept,
            "rejected": run.embed.counters.get("rejected", 0),
            "filtered": run.embed.counters.get("filtered", 0),
            "fraction": kept / len(index) if len(index) else 0.0,
            "max_fraction": float(ranking.ranked_N.mean()) if len(index) else 0.0,
            "score": run.score_name,
            "mean_score": index.mean_score(ranking.kept_N),
            "threshold": ranking.threshold,
            "thresholds": _list_thresholds(index, ranking.kept_N),
            # From this forward score on, only suppression drops a sample.
            "suppressed_from": ranking.threshold
            if run.method == "d2" and run.select.params.get("groups") is None
            else None,
            "reasons": index.counts(),
            "has_images": run.has_images,
        }

    def search(self, parameters: Parameters) -> dict[str, Any]:
        """One page of search results.

        Raises:
            UserError: a parameter has an unexpected value.
        """
        opened, query = self._open(parameters), parse_query(parameters)
        start, limit = parse_page(parameters)
        if query.by_meaning:
            return self._search_by_meaning(opened, query, start, limit)
        total, positions = opened.index.page(query, start, limit, self._members(opened, query))
        return {"total": total, "rows": _rows(opened.index, positions)}

    def _search_by_meaning(self, opened: OpenRun, query: Query, start: int, limit: int) -> dict[str, Any]:
        hits = self._meaning.find(opened, query, self._members(opened, query))
        shown = hits[start : start + limit]
        rows = _rows(opened.index, shown.positions)
        for row, similarity in zip(rows, shown.similarities.tolist(), strict=True):
            row["similarity"] = to_json(similarity)
        nearest = len(self._meaning.nearest(opened, query))
        found = {"total": len(hits), "nearest": nearest, "rows": rows}
        if query.image:
            found["image"] = query.image
        if query.like is not None:
            (texts,) = opened.index.texts.rows(np.array([query.like]))
            found["like"] = {"position": query.like, "uid": texts["uid"]}
        return found

    def meaning(self, parameters: Parameters) -> dict[str, Any]:
        """What searches by meaning lack, see `Meaning.describe`."""
        return self._meaning.describe(self._open(parameters).run)

    def add_image(self, data: bytes, parameters: Parameters) -> dict[str, Any]:
        """Take an image to search for; the answer's `image` names it in searches of the run.

        Raises:
            UserError: as `Meaning.add_image`.
        """
        return {"image": self._meaning.add_image(self._open(parameters).run, data)}

    def around(self, parameters: Parameters) -> dict[str, Any]:
        """Where a sample is in a list of search results, and the ones before and after it.

        Raises:
            UserError: a parameter has an unexpected value.
        """
        opened, query = self._open(parameters), parse_query(parameters)
        position = self._parse_position(opened, parameters.get("at", ""))
        found, _ = self._find(opened, query)
        place = np.flatnonzero(found == position)
        if not len(place):
            return {"total": len(found), "place": None, "previous": None, "next": None}
        at = int(place[0])

        def link(row: int) -> dict[str, Any] | None:
            if not 0 <= row < len(found):
                return None
            (texts,) = opened.index.texts.rows(found[row : row + 1])
            return {"position": int(found[row]), "uid": texts["uid"]}

        return {"total": len(found), "place": at, "previous": link(at - 1), "next": link(at + 1)}

    def clusters(self, parameters: Parameters) -> dict[str, Any]:
        """The report's clusters, for the filter; waits until they are computed."""
        index = self._open(parameters).index
        names = ("number", "name", "samples", "kept")
        rows = [dict(zip(names, row, strict=True)) for row in index.cluster_counts()]
        return {"clusters": rows, "complete": index.clusters.complete}

    def preview(self, parameters: Parameters) -> dict[str, Any]:
        """The selection at another fraction.

        Raises:
            UserError: the fraction is not in (0, 1].
        """
        index = self._open(parameters).index
        fraction = parse_number(parameters, "fraction")
        _, limit = parse_page(parameters, _PREVIEW_ROWS)
        if fraction is None:
            raise UserError("fraction: found nothing; expected a number")
        preview = index.preview(fraction, limit)
        return {
            "size": preview.size,
            "limited": preview.limited,
            "threshold": to_json(preview.threshold),
            "thresholds": _list_thresholds(index, index.kept_at(fraction)),
            "mean_score": preview.mean_score,
            "added": {"total": preview.n_added, "rows": _rows(index, preview.added)},
            "removed": {"total": preview.n_removed, "rows": _rows(index, preview.removed)},
        }

    def map(self, parameters: Parameters) -> dict[str, Any]:
        """How far the map is; the first request starts to compute it."""
        opened = self._open(parameters)
        found = self._map(opened)
        found.start()
        return {**found.progress(), "reasons": list(opened.index.reasons)}

    def map_points(self, parameters: Parameters) -> bytes:
        """The points of the map, see `pool_map.pack_points`; waits until they are computed."""
        opened = self._open(parameters)
        return pack_points(self._map(opened).layout(), opened.index)

    def compare(self, parameters: Parameters) -> dict[str, Any]:
        """Two selections side by side.

        Raises:
            UserError: `a` or `b` names no selection.
        """
        a, b = self._sides(parameters)
        return dict(to_json(comparison.compare(self.workspace, a, b)))

    def coverage(self, parameters: Parameters) -> dict[str, Any]:
        """The coverage gaps of two selections, each measured on a random sample of its own pool."""
        gaps = []
        for side in self._sides(parameters):
            run = side.opened.run
            key = run.embed.fingerprint, run.features, run.embeddings_file
            sample = self._coverage_samples.get(key, partial(comparison.read_coverage_sample, run))
            gaps.append(None if sample is None else sample.gap(side.mask_N))
        return dict(to_json({"a": gaps[0], "b": gaps[1]}))

    def explain(self, name: str, parameters: Parameters) -> dict[str, Any]:
        """One sample, explained.

        Args:
            name: its uid, or its canonical position.
            parameters: `at`, the position of the sample that is meant if several share the uid.

        Raises:
            UserError: there is no such sample.
        """
        opened = self._open(parameters)
        position, same_uid = self._locate(opened, name, parameters.get("at", ""))
        threshold = opened.index.threshold_of(position)
        explanation = explain(opened.run, position, opened.index.ranking, threshold)
        suppressed_by = explanation.suppressed_by
        return {
            **to_json(dataclasses.asdict(explanation)),
            "score_name": opened.run.score_name,
            "offset": opened.run.offset,
            "gammas": opened.run.gamma_texts,
            "fields": list(opened.run.fields),
            "suppressed_by": suppressed_by.position if suppressed_by else None,
            "suppressed": [neighbour.position for neighbour in explanation.suppressed],
            "cluster": opened.index.cluster_of(position),
            "same_uid": same_uid,
        }

    def _locate(self, opened: OpenRun, name: str, hint: str) -> tuple[int, list[int]]:
        """The position of a sample, and those of all samples with its uid if it is named by that."""
        if len(name) <= _MAX_POSITION_DIGITS and name.isdecimal():
            return self._parse_position(opened, name), []
        uid, texts = normal_uid(name) or name, opened.index.texts
        # A bookmark's position may be that of a larger pool.
        is_position = hint.isdecimal() and len(hint) <= _MAX_POSITION_DIGITS and int(hint) < len(opened.run)
        position = int(hint) if is_position else None
        if position is not None and not texts.all_held:
            # A search takes seconds, and the list has named the position.
            if texts.rows(np.array([position]))[0]["uid"] == uid:
                return position, [position]
        found = texts.find_uid(uid)
        if not found:
            raise UserError(f"sample: found no uid {name!r} in run {opened.name}; expected one of its pool")
        return (position if position is not None and position in found else found[0]), found

    def rejected(self, parameters: Parameters) -> dict[str, Any]:
        """One page of the samples that were rejected or filtered."""
        samples = self._open(parameters).rejected
        start, limit = parse_page(parameters)
        found = samples.find(split_words(parameters.get("q", "")), parameters.get("reason", ""))
        rows = [to_json(row) for row in samples.rows(found[start : start + limit])]
        return {"total": len(found), "rows": rows, "reasons": samples.counts()}

    def export(self, kind: str, parameters: Parameters) -> Iterator[bytes]:
        """A list as a file, in pieces.

        Args:
            kind: `samples.parquet`, `subset.npy` or `rejected.parquet`.
            parameters: those of the list.

        Raises:
            UserError: a parameter has an unexpected value.
        """
        opened = self._open(parameters)
        if kind == "rejected.parquet":
            words, reason = split_words(parameters.get("q", "")), parameters.get("reason", "")
            tables = opened.rejected.tables(opened.rejected.find(words, reason))
            return export.to_parquet(tables, schemas.REJECTS)
        query = parse_query(parameters)
        positions, similarities = self._find(opened, query)
        if kind == "subset.npy":
            return iter([export.subset_file(opened.index.texts, positions)])
        return export.to_parquet(export.sample_tables(opened.run, positions, similarities), schemas.DECISIONS)

    def image(self, position: int, size: str, parameters: Parameters) -> bytes:
        """The sample's image as WebP; empty if there is none.

        Raises:
            UserError: there is no such position or size.
        """
        opened = self._open(parameters)
        self._parse_position(opened, str(position))
        if size not in _IMAGE_SIDES:
            raise UserError(f"size: found {size!r}; expected one of {', '.join(_IMAGE_SIDES)}")
        make = partial(self._make_image, opened.run, position, size)
        # Few are opened in full size, and each takes a megabyte.
        return (
            make()
            if size == "full"
            else self._images.get((opened.run.embed.fingerprint, position, size), make)
        )

    def _make_image(self, run: FinishedRun, position: int, size: str) -> bytes:
        row = run.parts.take(np.array([position]), SAMPLES, ["shard", "offset", "size"]).to_pylist()[0]
        url = (run.urls if self._urls is None else self._urls).get(row["shard"])
        if url is None or row["offset"] is None:
            return b""
        # Always re-encoded, so the browser never receives the bytes of the pool.
        source = ImageSource(url, row["offset"], row["size"] or 0)
        return small_webp(read_image(source), run.max_pixels, _IMAGE_SIDES[size])

    def _open(self, parameters: Parameters) -> OpenRun:
        return self.workspace.open(parameters.get("run", ""))

    def _sides(self, parameters: Parameters) -> tuple[Kept, Kept]:
        default = self._open(parameters)
        a, b = (self.workspace.parse(parameters.get(name, ""), default, name) for name in ("a", "b"))
        return a, b

    def _find(self, opened: OpenRun, query: Query) -> tuple[NDArray[np.int64], NDArray[np.float32] | None]:
        """All positions of a list in its order, and their similarities if that is by meaning."""
        members = self._members(opened, query)
        if not query.by_meaning:
            return opened.index.find(query, members).astype(np.int64), None
        hits = self._meaning.find(opened, query, members)
        return hits.positions, hits.similarities

    def _members(self, opened: OpenRun, query: Query) -> Mask | None:
        """Which samples are in the set of a comparison and inside the outline; None: the list has neither."""
        inside_N = None if query.outline is None else self._map(opened).inside(query.outline)
        if not query.among:
            return inside_N
        a, b = (self.workspace.parse(getattr(query, name), opened, name) for name in ("a", "b"))
        member_N = comparison.members(self.workspace, a, b, query.among, opened)
        return member_N if inside_N is None else member_N & inside_N

    def _map(self, opened: OpenRun) -> PoolMap:
        with self._maps_lock:
            return self._maps.setdefault(opened.run.graph.fingerprint, PoolMap(opened.run))

    def _parse_position(self, opened: OpenRun, text: str) -> int:
        """A canonical position of the run's pool."""
        n = len(opened.run)
        if not text.isdecimal() or len(text) > _MAX_POSITION_DIGITS or int(text) >= n:
            raise UserError(f"sample: found {text[:30]}; expected a position from 0 to {n - 1}")
        return int(text)


def _list_thresholds(index: SampleIndex, kept_N: Mask) -> dict[str, Any]:
    """The thresholds of the largest groups; no groups if the run has none."""
    found = index.group_thresholds(kept_N)
    return {"total": len(found), "rows": [dataclasses.asdict(group) for group in found[:_MAX_GROUPS]]}


def _rows(index: SampleIndex, positions: NDArray[np.int64]) -> list[dict[str, Any]]:
    return [
        to_json({**row, "caption": (row["caption"] or "")[:_MAX_CAPTION_LENGTH]})
        for row in index.rows(positions)
    ]
