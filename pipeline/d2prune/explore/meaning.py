"""Searches of a run by meaning, for the explorer: samples that match a text or image, or are like a sample.

Reads the index of the run's graph, which is mapped into memory once, however many runs share the graph,
and encodes texts and images with the run's model, which the first of them loads. Writes nothing; safe to
share among threads.
"""

from __future__ import annotations

import hashlib
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

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
# Of 4 kB each: embeddings, not images.
_IMAGES = 256


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
        self._images: Recent[NDArray[np.float32]] = Recent(_IMAGES)

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
            self._require_model(run)
            model.check()
        except UserError as error:
            return {"index": None, "text": str(error), "loaded": False}
        return {"index": None, "text": None, "loaded": model.loaded}

    def add_image(self, run: FinishedRun, data: bytes) -> str:
        """Encode an image to search for, and keep its embedding in memory, nothing else.

        Args:
            run: its model encodes the image.
            data: the content of an image file.

        Returns:
            The image's name for `Query.image`, a hash of its content: the same image has the same name.

        Raises:
            UserError: there is no index or no model, or the content is no image that can be decoded.
        """
        name = hashlib.sha256(data).hexdigest()[:32]
        model = self._open(run).model
        self._require_model(run)
        self._images.get((run.graph.fingerprint, name), partial(model.encode_image, data))
        return name

    def nearest(self, opened: OpenRun, query: Query) -> Hits:
        """The samples nearest to what a query describes, most similar first, at most `NEAREST`.

        Raises:
            UserError: there is no index, no model, or no such sample or image.
        """
        key = opened.run.graph.fingerprint, query.text, query.like, query.image
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
        if query.image:
            key = run.graph.fingerprint, query.image
            return searcher.near(self._images.get(key, _refuse_unknown_image), NEAREST)
        if query.like is None:
            self._require_model(run)
            return searcher.by_text(query.text, NEAREST)
        if query.like >= len(run):
            raise UserError(f"like: found {query.like}; expected a position from 0 to {len(run) - 1}")
        return searcher.like(query.like, NEAREST)

    def _require_model(self, run: FinishedRun) -> None:
        # In the words of the page: those of `QueryModel` advise options of `d2prune search`.
        if not run.has_images and self._model is None:
            raise UserError(
                "model: this pool was imported from tables, so the run does not know the model of its "
                "embeddings; to search for texts and images, start `d2prune explore` with --model"
            )

    def _open(self, run: FinishedRun) -> Searcher:
        # One at a time: two searchers of one graph would load its model twice.
        with self._lock:
            return self._searchers.get(run.graph.fingerprint, partial(self._make, run))

    def _make(self, run: FinishedRun) -> Searcher:
        # Imports faiss, which the explorer can do without until the first search by meaning.
        from d2prune.search.searcher import Searcher

        return Searcher(run, self._folder, self._model)


def _refuse_unknown_image() -> NoReturn:
    raise UserError(
        "image: found one that this server does not hold, since it was started again, "
        f"{_IMAGES} others were searched for, or the run has another model; expected the image to be chosen "
        "again"
    )
