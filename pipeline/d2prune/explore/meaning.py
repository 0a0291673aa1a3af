"""Searches of a run by meaning, for the explorer: samples that match a text, or that are like one of them.

Reads the index of the run's graph, which is mapped into memory once, however many runs share the graph,
and encodes texts with the run's model, which the first of them loads. Writes nothing; safe to share
among threads.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from d2prune.errors import UserError
from d2prune.explore.recent import Recent

if TYPE_CHECKING:
    from d2prune.explore.query import Query
    from d2prune.explore.sample_index import Mask
    from d2prune.explore.workspace import OpenRun
    from d2prune.runs.finished import FinishedRun
    from d2prune.search.query_model import Name
    from d2prune.search.searcher import Hits, Searcher

# Enough to page through, and few enough that a search takes no longer than one for ten.
NEAREST = 1_000
# Each may hold a model.
_SEARCHERS = 2
# Of 12 kB each.
_HITS = 64


class Meaning:
    """The searches of one explorer."""

    def __init__(self, folder: str | None = None, model: Name | None = None) -> None:
        """Open nothing yet.

        Args:
            folder: with the merged view of the index; None: the one inside the work_dir.
            model: (model, pretrained), see `QueryModel`.
        """
        self._folder, self._model = folder, model
        self._searchers: Recent[Searcher] = Recent(_SEARCHERS)
        self._lock = threading.Lock()
        self._hits: Recent[Hits] = Recent(_HITS)

    def describe(self, run: FinishedRun) -> dict[str, Any]:
        """What searches of a run lack, in one line each; None: nothing.

        Returns:
            `index`: why nothing can be searched; `text`: why no text can be searched for; `loaded`:
            whether the model is in memory.
        """
        try:
            model = self._open(run).model
        except UserError as error:
            return {"index": str(error), "text": None, "loaded": False}
        try:
            model.check()
        except UserError as error:
            return {"index": None, "text": str(error), "loaded": False}
        return {"index": None, "text": None, "loaded": model.loaded}

    def nearest(self, opened: OpenRun, query: Query) -> Hits:
        """The samples nearest to what a query describes, most similar first, at most `NEAREST`.

        Raises:
            UserError: there is no index, no model, or no such sample.
        """
        key = opened.run.graph.fingerprint, query.text, query.like
        return self._hits.get(key, partial(self._search, opened.run, query))

    def find(self, opened: OpenRun, query: Query, member_N: Mask | None) -> Hits:
        """Those of the nearest samples that pass the query's filters.

        Args:
            opened: the run.
            query: a search by meaning.
            member_N: as `SampleIndex.find` takes it.

        Raises:
            UserError: as `nearest`.
        """
        hits = self.nearest(opened, query)
        mask_N = opened.index.filter(query, member_N)
        return hits if mask_N is None else hits[mask_N[hits.positions]]

    def _search(self, run: FinishedRun, query: Query) -> Hits:
        searcher = self._open(run)
        if query.like is None:
            return searcher.by_text(query.text, NEAREST)
        if query.like >= len(run):
            raise UserError(f"like: found {query.like}; expected a position from 0 to {len(run) - 1}")
        return searcher.like(query.like, NEAREST)

    def _open(self, run: FinishedRun) -> Searcher:
        # One at a time: two searchers of one graph would load its model twice.
        with self._lock:
            return self._searchers.get(run.graph.fingerprint, partial(self._make, run))

    def _make(self, run: FinishedRun) -> Searcher:
        # Imports faiss, which the explorer can do without until the first search by meaning.
        from d2prune.search.searcher import Searcher

        return Searcher(run, self._folder, self._model)
