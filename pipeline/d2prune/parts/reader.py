"""Reads the row-aligned parts of the embed and select artifacts: by part, by a seeded sample, by canonical position.

Memory holds one part and what is asked for. A canonical position is the rows of all earlier parts
plus the row.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import BooksError, InfrastructureError
from d2prune.store import artifacts, schemas
from d2prune.store.artifacts import Manifest
from d2prune.store.columns import vectors
from d2prune.store.ranges import open_parquet

SAMPLES = "samples.parquet"
DECISIONS = "decisions.parquet"
_FIRST = schemas.embeddings_file()


class Pool:
    """The embedded samples of a run with the decision on each.

    Args:
        work_dir: where the artifacts lie.
        embed: manifest of the embed artifact.
        select: manifest of the select artifact.
        embeddings: the file of each embed part that embeddings are read from.

    Raises:
        BooksError: the artifacts are not row-aligned, so they belong to different runs.
    """

    def __init__(self, work_dir: str, embed: Manifest, select: Manifest, embeddings: str = _FIRST):
        self._embed, self._select, self._embeddings = embed, select, embeddings
        self._embed_folder = store.join(work_dir, embed.stage)
        self._select_folder = store.join(work_dir, select.stage)
        self.rows_P = np.array([unit.rows(SAMPLES) for unit in embed.units], dtype=np.int64)
        decided = [unit.rows(DECISIONS) for unit in select.units]
        if decided != self.rows_P.tolist():
            raise BooksError(
                f"report: select {select.fingerprint} decides on {sum(decided)} rows in {len(decided)} parts, but "
                f"embed {embed.fingerprint} has {self.rows_P.sum()} in {len(self.rows_P)}"
            )
        self._starts_P = np.concatenate([[0], np.cumsum(self.rows_P)])

    def __len__(self) -> int:
        return int(self._starts_P[-1])

    def decisions(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """Each part's decisions with the canonical position of its first row; empty parts are left out."""
        for part, unit in enumerate(self._select.units):
            if self.rows_P[part]:
                table = artifacts.read_table(self._select_folder, unit, DECISIONS, columns)
                yield int(self._starts_P[part]), table

    def sample(self, size: int, max_groups: int, seed: int) -> NDArray[np.int64]:
        """Seeded, ascending canonical positions of at most `size` samples, from at most `max_groups` row groups.

        Row groups are limited because embeddings are read in whole ones: a report cannot read a billion.
        """
        rng = np.random.default_rng(seed)
        starts, sizes = self._groups()
        if len(starts) > max_groups:
            drawn = np.sort(rng.choice(len(starts), max_groups, replace=False))
            starts, sizes = starts[drawn], sizes[drawn]
        ends = np.cumsum(sizes)
        total = int(ends[-1]) if len(ends) else 0
        chosen = (
            np.arange(total)
            if total <= size
            else np.sort(rng.choice(total, size, replace=False, shuffle=False))
        )
        within = np.searchsorted(ends, chosen, side="right")
        return np.asarray(starts[within] + chosen - (ends - sizes)[within], dtype=np.int64)

    def _groups(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Canonical position of the first row, and rows, of every row group of the embeddings."""
        counts_P = -(-self.rows_P // artifacts.ROWS_PER_GROUP)
        part_G = np.repeat(np.arange(len(counts_P)), counts_P)
        first_G = np.concatenate([np.arange(count) for count in counts_P] or [np.zeros(0, np.int64)])
        first_G = first_G.astype(np.int64) * artifacts.ROWS_PER_GROUP
        return self._starts_P[part_G] + first_G, np.minimum(
            self.rows_P[part_G] - first_G, artifacts.ROWS_PER_GROUP
        )

    def part_of(self, positions_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """The part (= input shard) that holds each canonical position."""
        return np.asarray(np.searchsorted(self._starts_P, positions_N, side="right") - 1, dtype=np.int64)

    def take(
        self, positions_N: NDArray[np.int64], columns: Sequence[str], embeddings: bool = False
    ) -> tuple[pa.Table, NDArray[np.float16], NDArray[np.float16]]:
        """Rows at canonical positions, in the order given; a position may come more than once.

        Args:
            positions_N: int64 [N].
            columns: columns of the samples or decisions tables, embeddings excepted.
            embeddings: whether to read the embeddings too.

        Returns:
            The table [N], and float16 [N, D] image and text embeddings ([N, 0] unless asked for).
        """
        parts_N = self.part_of(positions_N)
        order_N = np.argsort(parts_N, kind="stable")
        tables, images, texts = [], [], []
        for part in np.unique(parts_N):
            rows = positions_N[order_N][parts_N[order_N] == part] - self._starts_P[part]
            table, image, text = self._rows(int(part), rows, columns, embeddings)
            tables.append(table)
            images.append(image)
            texts.append(text)
        if not tables:
            empty = np.zeros((0, 0), np.float16)
            return pa.table({name: [] for name in columns}), empty, empty
        back_N = np.argsort(order_N, kind="stable")
        return (
            pa.concat_tables(tables).take(back_N),
            np.concatenate(images)[back_N],
            np.concatenate(texts)[back_N],
        )

    def _rows(
        self, part: int, rows: NDArray[np.int64], columns: Sequence[str], embeddings: bool
    ) -> tuple[pa.Table, NDArray[np.float16], NDArray[np.float16]]:
        decided = artifacts.read_table(self._select_folder, self._select.units[part], DECISIONS)
        # `shard`, `key` and `uid` are in both tables; the decisions' are as good.
        from_samples = [name for name in columns if name not in decided.column_names]
        image = text = np.zeros((len(rows), 0), np.float16)
        if from_samples:
            samples = artifacts.read_table(self._embed_folder, self._embed.units[part], SAMPLES, from_samples)
        if embeddings:
            image, text = self._vectors(part, rows)
        merged = {
            name: (decided if name in decided.column_names else samples)[name].take(rows) for name in columns
        }
        return pa.table(merged), image, text

    def _vectors(self, part: int, rows: NDArray[np.int64]) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        """Image and text embeddings of some rows, [N, 0] where there is no such side: tables may hold one only.

        Only the row groups that hold them are read, so their checksum, which is of the whole file,
        is not looked at.
        """
        unit = self._embed.units[part]
        url = artifacts.unit_url(self._embed_folder, unit.key, self._embeddings)
        size = next(file.size for file in unit.files if file.name == self._embeddings)
        try:
            file = open_parquet(url, size)
            starts = np.cumsum(
                [0, *(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))]
            )
            group_N = np.searchsorted(starts, rows, side="right") - 1
            wanted = np.unique(group_N)
            found = [
                file.read_row_group(group).take(rows[group_N == group] - starts[group]) for group in wanted
            ]
        except (FileNotFoundError, pa.ArrowInvalid) as error:
            raise InfrastructureError(
                f"{store.redact(url)}: cannot be read: {error}; run again to make it"
            ) from error
        back_N = np.argsort(np.argsort(group_N, kind="stable"), kind="stable")
        both = pa.concat_tables(found).take(back_N)
        none = np.zeros((len(rows), 0), np.float16)
        image, text = (
            vectors(both[name]) if name in both.column_names else none for name in ("image_emb", "text_emb")
        )
        return image, text
