"""Captions, uids and keys of a pool, for search and display.

Reads the samples of the embed artifact, and holds all of them if they take at most `TEXT_LIMIT`;
otherwise a few parts, and the others are read again by every search. Writes nothing; safe to share
among threads and among the runs of one pool. N samples, M of them shown.
"""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from d2prune.explore.matching import begins, contains
from d2prune.inputs.sample_id import normal_uid
from d2prune.parts.files import SAMPLES
from d2prune.parts.reader import Parts

TEXT_LIMIT = 384 << 20
_SHARE_OF_LARGE = 4
_COLUMNS = ("uid", "key", "caption")
_THREADS = 4

Positions = NDArray[np.integer[Any]]


class Texts:
    """The texts of one pool; see the module's docstring."""

    def __init__(self, parts: Parts, limit: int = TEXT_LIMIT) -> None:
        """Read nothing yet."""
        self._parts, self._limit = parts, limit
        self._held: dict[int, pa.Table] = {}
        self._held_bytes = 0
        self._lock = threading.Lock()

    def load(self) -> None:
        """Read what will be held, before the first search needs it."""
        n_parts = self._parts.spans.n_parts
        if not n_parts:
            return
        first = self._read(0)
        # Loads the compiled search.
        _match_words(first.slice(0, 1), ("a",))
        if first.nbytes * len(self._parts.spans) > self._limit * len(first):
            # Half a pool in memory would not make a search interactive: enough for the pages shown.
            self._limit //= _SHARE_OF_LARGE
            return
        with ThreadPoolExecutor(_THREADS) as threads:
            list(threads.map(self._read, range(n_parts)))

    def rows(self, positions_M: Positions) -> list[dict[str, Any]]:
        """uid, key and caption of samples, in the order given."""
        found: dict[int, dict[str, Any]] = {}
        pieces = list(self._parts.spans.by_part(positions_M.astype(np.int64)))
        with ThreadPoolExecutor(_THREADS) as threads:
            tables = threads.map(lambda piece: self._read(piece[0]).take(piece[2]).to_pylist(), pieces)
            for (_, index_M, _), rows in zip(pieces, tables, strict=True):
                found.update(zip(index_M.tolist(), rows, strict=True))
        return [found[index] for index in range(len(positions_M))]

    def match(self, words: Sequence[str]) -> NDArray[np.bool_]:
        """Which samples match every word, bool [N].

        A word matches if it is part of the caption in upper or lower case, the beginning of the uid or
        the whole key. Uids may have the dashes of a UUID.
        """
        # The longest is most likely the rarest.
        ordered = sorted(words, key=len, reverse=True)
        return self._concatenate(lambda part: _match_words(self._read(part), ordered))

    def match_uids(self, uids: pa.Array) -> NDArray[np.bool_]:
        """Which samples have one of these uids, bool [N]."""
        return self._concatenate(lambda part: _as_mask(pc.is_in(self._read_uids(part), value_set=uids)))

    def find_uid(self, uid: str) -> list[int]:
        """Canonical positions of the samples with a uid."""
        mask_N = self._concatenate(lambda part: _as_mask(pc.equal(self._read_uids(part), uid)))
        return np.flatnonzero(mask_N).tolist()

    def uids(self, mask_N: NDArray[np.bool_]) -> pa.Array:
        """The distinct uids of the samples of a mask."""

        def read(part: int) -> pa.ChunkedArray:
            start, stop = self._parts.spans.bounds(part)
            return self._read_uids(part).filter(pa.array(mask_N[start:stop]))

        with ThreadPoolExecutor(_THREADS) as threads:
            chunks = [
                c for found in threads.map(read, range(self._parts.spans.n_parts)) for c in found.chunks
            ]
        return pc.unique(pa.chunked_array(chunks, pa.string()))

    def uids_at(self, positions_M: Positions) -> Iterator[pa.ChunkedArray]:
        """The uids of samples in canonical order, part by part."""
        for part, _, row_M in self._parts.spans.by_part(positions_M.astype(np.int64)):
            yield self._read_uids(part).take(row_M)

    @property
    def all_held(self) -> bool:
        """Whether all texts are in memory, so that a search of the whole pool is interactive."""
        return len(self._held) == self._parts.spans.n_parts

    def _read_uids(self, part: int) -> pa.ChunkedArray:
        held = self._held.get(part)
        return (self._parts.peek(part, SAMPLES, ["uid"]) if held is None else held)["uid"]

    def _concatenate(self, work: Any) -> NDArray[np.bool_]:
        with ThreadPoolExecutor(_THREADS) as threads:
            masks = list(threads.map(work, range(self._parts.spans.n_parts)))
        return np.concatenate([np.zeros(0, bool), *masks])

    def _read(self, part: int) -> pa.Table:
        found = self._held.get(part)
        if found is None:
            found = self._parts.peek(part, SAMPLES, _COLUMNS)
            with self._lock:
                if self._held_bytes < self._limit and part not in self._held:
                    self._held[part] = found
                    self._held_bytes += found.nbytes
        return found


def _match_words(table: pa.Table, words: Sequence[str]) -> NDArray[np.bool_]:
    """Which rows match every word."""
    mask_R = np.ones(len(table), bool)
    for word in words:
        mask_R &= contains(table["caption"], word, mask_R) | _match_names(table, word)
    return mask_R


def _match_names(table: pa.Table, word: str) -> NDArray[np.bool_]:
    """Which rows have a uid that begins with a word, or have it as their key."""
    hit_R = begins(table["uid"], normal_uid(word) or word.lower())
    # `tar -C FOLDER .` puts `./` before every key.
    for key in (word, f"./{word}"):
        hit_R |= begins(table["key"], key, whole=True)
    return hit_R


def _as_mask(found: pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.array(found.to_numpy(), bool)
