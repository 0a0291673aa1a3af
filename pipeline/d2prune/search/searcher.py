"""Searches the index of a finished run, and describes what is found.

Reads the merged view (`index/merge.py`), which faiss maps into memory, and the columns of the samples
found; writes nothing. Safe to share among threads. M queries, D dimensions, K found.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import UserError
from d2prune.index.merge import check_graph, read_record
from d2prune.index.views import import_faiss
from d2prune.parts.files import DECISIONS
from d2prune.report.outcome import NOT_RANKED, describe_outcome
from d2prune.runs.artifact_kinds import BODY, STAGE_NAME, VIEW, fingerprint_of
from d2prune.runs.finished import FinishedRun
from d2prune.search.query_model import Name, QueryModel

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

EXACT_BELOW = 20_000
"""Smaller pools are searched whole."""

# Texts are farther from images than images from one another, and their nearest images are in more
# lists: at 735 lists, 64 of them hold 99 % of the ten nearest, where 32 hold 97 %.
_NPROBE = 64
# The lists visited hold at least this many rows, and this many times the rows wanted: at a million
# rows in 10,000 lists, 32 lists hold 92 % of the ten nearest images.
_ROWS, _OVERSAMPLING = 20_000, 8
# Results of a batch of queries that are in memory.
_BATCH_RESULTS = 2**22
_COLUMNS = (
    "uid", "shard", "key", "caption", "clip_score", "difficulty", "forward_score", "selection_score", "kept",
    "reason", "suppressed_by",
)  # fmt: skip


@dataclass(frozen=True)
class Hits:
    """Samples found, most similar first.

    Attributes:
        positions: int64 [K], canonical.
        similarities: float32 [K], cosine of the sample and the query.
    """

    positions: Int64
    similarities: Float32

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, rows: slice | NDArray[np.bool_]) -> Hits:
        return Hits(self.positions[rows], self.similarities[rows])


@dataclass(frozen=True)
class Found:
    """One sample found.

    Attributes:
        position: canonical.
        similarity: cosine of the sample and the query.
        uid: its uid.
        shard: the tar or table that holds it.
        key: its key there.
        caption: its caption.
        clip_score: None if the pool has none.
        score: the score that the run selected by, without its offset.
        selection_score: None if it was not ranked.
        kept: whether it was kept.
        outcome: whether it was kept, and if not, why; in the words of `d2prune explain`.
    """

    position: int
    similarity: float
    uid: str
    shard: str
    key: str
    caption: str
    clip_score: float | None
    score: float
    selection_score: float | None
    kept: bool
    outcome: str


class Searcher:
    """Searches one run."""

    def __init__(self, run: FinishedRun, folder: str | None = None, model: Name | None = None) -> None:
        """Open the index; a model is loaded at the first query that needs one.

        Args:
            run: the run.
            folder: with the merged view; None: the one inside the work_dir.
            model: (model, pretrained), see `QueryModel`.

        Raises:
            UserError: there is no index of this run's graph.
        """
        self.run, self.model = run, QueryModel(run, model)
        self._faiss = import_faiss()
        self._index = _open(self._faiss, run, _find_folder(run, folder))

    def by_text(self, text: str, top: int) -> Hits:
        """Find the samples that match a text.

        Raises:
            UserError: as `QueryModel.encode_text`.
        """
        return self.near(self.model.encode_text(text), top)

    def by_image(self, data: bytes, top: int) -> Hits:
        """Find the samples that match an image, given the content of its file.

        Raises:
            UserError: as `QueryModel.encode_image`.
        """
        return self.near(self.model.encode_image(data), top)

    def like(self, position: int, top: int) -> Hits:
        """Find the samples most similar to one of the pool, without itself; needs no model."""
        image, text = self.run.parts.take_vectors(np.array([position]), self.run.embeddings_file)
        hits = self._search(self._make_rows(image, text), top + 1)
        return hits[hits.positions != position][:top]

    def near(self, queries_MD: NDArray[Any], top: int) -> Hits:
        """Find the samples nearest to any of some embeddings.

        Args:
            queries_MD: floats [M, D], of any norm: embeddings of images or texts; or rows of both, image
                first, if the graph is of both.
            top: samples to find in total.

        Raises:
            UserError: another D than the index's, or a row cannot be normalised.
        """
        return self._search(self._make_queries(queries_MD), top)

    def describe(self, hits: Hits) -> list[Found]:
        """Describe samples found, in the same order."""
        run = self.run
        rows = run.parts.take_merged(hits.positions, _COLUMNS).to_pylist() if len(hits) else []
        return [
            Found(
                position,
                similarity,
                row["uid"],
                row["shard"],
                row["key"],
                row["caption"] or "",
                row["clip_score"],
                row["difficulty"] - run.offset,
                None if row["reason"] in NOT_RANKED else row["selection_score"],
                row["kept"],
                self._describe_outcome(position, row),
            )
            for position, similarity, row in zip(
                hits.positions.tolist(), hits.similarities.tolist(), rows, strict=True
            )
        ]

    def read_uids(self, hits: Hits) -> Iterator[list[str]]:
        """Yield the uids of samples found, in parts."""
        for start in range(0, len(hits), _BATCH_RESULTS):
            positions = np.sort(hits.positions[start : start + _BATCH_RESULTS])
            yield self.run.parts.take(positions, DECISIONS, ["uid"])["uid"].to_pylist()

    @cached_property
    def _threshold(self) -> float | None:
        """The lowest selection score that was kept; None if nothing was kept."""
        lowest = [
            pc.min(pc.if_else(table["kept"], table["selection_score"], None)).as_py()
            for table in self.run.parts.peek_all(DECISIONS, ["kept", "selection_score"])
        ]
        return min((value for value in lowest if value is not None), default=None)

    def _describe_outcome(self, position: int, row: dict[str, Any]) -> str:
        unranked = row["reason"] in NOT_RANKED
        keeper = self.run.keeper(position) if unranked else None
        return describe_outcome(
            row["reason"],
            None if unranked else row["forward_score"],
            self._threshold,
            self.run.method,
            row["suppressed_by"],
            keeper[1] if keeper else None,
        )

    def _make_queries(self, queries_MD: NDArray[Any]) -> Float32:
        kind, width = self.run.features, self._index.d
        half = width // 2
        if kind == "image+text" and queries_MD.ndim == 2 and queries_MD.shape[1] == width:
            return self._make_rows(queries_MD[:, :half], queries_MD[:, half:])
        wanted = half if kind == "image+text" else width
        if queries_MD.ndim != 2 or queries_MD.shape[1] != wanted:
            either = f"{wanted} or {width}" if kind == "image+text" else str(wanted)
            raise UserError(
                f"query: found embeddings of shape {queries_MD.shape}; expected [M, {either}], as in this "
                "pool"
            )
        # A query of one side is compared with both: the cosine is the mean of the two.
        return self._make_rows(queries_MD, queries_MD)

    def _make_rows(self, image: NDArray[Any], text: NDArray[Any]) -> Float32:
        # Imports torch, which a server can do without until the first search.
        from d2prune.knn.features import features

        return features(self.run.features, image, text)

    def _search(self, rows_MD: Float32, top: int) -> Hits:
        """Find the `top` samples with the highest cosine to any of some rows; ties by position."""
        index = self._index
        top = min(top, index.ntotal)
        nprobe = index.nlist
        if index.ntotal >= EXACT_BELOW:
            rows = max(_ROWS, _OVERSAMPLING * top)
            nprobe = min(nprobe, max(_NPROBE, -(-rows * index.nlist // index.ntotal)))
        params = self._faiss.SearchParametersIVF(nprobe=nprobe)
        best = Hits(np.zeros(0, np.int64), np.zeros(0, np.float32))
        batch = max(1, _BATCH_RESULTS // max(1, top))
        for start in range(0, len(rows_MD), batch):
            similarities, ids = index.search(rows_MD[start : start + batch], top, params=params)
            found = ids >= 0
            positions = np.concatenate([best.positions, ids[found]])
            values = np.concatenate([best.similarities, similarities[found]])
            order = np.lexsort((positions, -values))
            # The first occurrence of a sample is its best one.
            _, first = np.unique(positions[order], return_index=True)
            chosen = order[np.sort(first)][:top]
            best = Hits(positions[chosen], values[chosen])
        return best


def _find_folder(run: FinishedRun, folder: str | None) -> str:
    if folder is not None:
        if not store.is_local(folder):
            raise UserError(f"--index: found {store.redact(folder)}; expected a local folder")
        return store.resolve(folder)
    if not store.is_local(run.work_dir):
        raise UserError(
            "--index: found nothing; expected the folder that `d2prune index --output` wrote, since work_dir "
            f"is {store.redact(run.work_dir)}"
        )
    return store.resolve(store.join(run.work_dir, STAGE_NAME, fingerprint_of(run.graph.fingerprint)))


def _open(faiss: Any, run: FinishedRun, folder: str) -> Any:
    record = read_record(folder)
    if record is None:
        raise UserError(
            f"{folder}: found no index of graph {run.graph.fingerprint}, of this run; expected one that "
            f"`d2prune index {store.redact(run.work_dir)}` has completed"
        )
    check_graph(record, run, folder)
    body = os.path.join(folder, BODY)
    found = os.path.getsize(body) if os.path.exists(body) else 0
    if found != record.get("bytes"):
        raise UserError(
            f"{body}: found {found} bytes; expected {record.get('bytes')}: run `d2prune index` again"
        )
    try:
        index = faiss.read_index(os.path.join(folder, VIEW), faiss.IO_FLAG_SKIP_IVF_DATA)
        # The folder may have been moved since the view was written. With IO_FLAG_ONDISK_SAME_DIR, faiss
        # would find the file by itself, and print a line about it.
        lists = faiss.downcast_InvertedLists(index.invlists)
        lists.filename = body
        lists.do_mmap()
    except (RuntimeError, AttributeError) as error:
        detail = " ".join(str(error).split())[-200:]
        raise UserError(
            f"{folder}: found an index that faiss cannot open ({detail}); run `d2prune index` again"
        ) from error
    return index
