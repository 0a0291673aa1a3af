"""Columns of the pool, read by part or by canonical position, from the tables of all stages.

`read` verifies the checksum of a file and so reads all of it. `peek`, `column` and `take` read only
the columns and row groups they need, and verify the checksums of these pages and of the footer.
Embeddings are read by `read_vectors` and `take_vectors` alone: those of a table may still be in the
arrays of the input (`in_place`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import BooksError, InfrastructureError, UserError
from d2prune.parts import files, shard_urls
from d2prune.parts.in_place import InPlace, InPlaceReader, find_in_place
from d2prune.parts.spans import Spans
from d2prune.store import artifacts, schemas
from d2prune.store.artifacts import Manifest, Receipt
from d2prune.store.columns import vector_column, vectors
from d2prune.store.faults import one_line
from d2prune.store.ranges import open_parquet

Float16 = NDArray[np.float16]

# Parts read concurrently. A remote store answers several requests as fast as one.
_THREADS = 8


class Parts:
    """The row-aligned parts of one pool.

    Args:
        work_dir: URL of the folder with the stages' folders.
        units: stage -> its receipts, one per part in canonical order; must contain `embed`.
        embed: fingerprint of the embed artifact, by which embeddings that stayed in the input are found;
            None: such embeddings are not read.
    """

    def __init__(
        self, work_dir: str, units: Mapping[str, Sequence[Receipt]], embed: str | None = None
    ) -> None:
        self._work_dir, self._units, self._embed = work_dir, units, embed

    @classmethod
    def of(cls, work_dir: str, found: Mapping[str, Manifest]) -> Parts:
        """The parts of some artifacts of one run, by stage; `embed` must be among them."""
        units = {stage: manifest.units for stage, manifest in found.items()}
        return cls(work_dir, units, found["embed"].fingerprint)

    def __len__(self) -> int:
        """Embedded samples."""
        return len(self.spans)

    @cached_property
    def spans(self) -> Spans:
        """Canonical positions of the parts."""
        return Spans.of_rows([receipt.rows(files.SAMPLES) for receipt in self._units["embed"]])

    def check_aligned(self, table: str) -> None:
        """Check that a stage's table has as many rows as the embed stage's, part by part.

        Raises:
            BooksError: it has not; the artifacts belong to different runs.
        """
        rows = [receipt.rows(table) for receipt in self._units[files.stage_of(table, self._units)]]
        embedded = np.diff(self.spans.starts).tolist()
        if rows != embedded:
            raise BooksError(
                f"{table}: found {sum(rows)} rows in {len(rows)} parts; expected {sum(embedded)} rows in "
                f"{len(embedded)} parts, as embedded"
            )

    def units(self, stage: str) -> Sequence[Receipt]:
        """The receipts of a stage, one per part; empty if it is not among those given."""
        return self._units.get(stage, ())

    def folder(self, table: str) -> str:
        """URL of the folder of the stage that wrote a table."""
        return store.join(self._work_dir, files.stage_of(table, self._units))

    def receipt(self, part: int, table: str) -> Receipt:
        """The receipt of the unit that wrote a table of a part.

        Raises:
            InfrastructureError: there is no artifact of that stage.
        """
        stage = files.stage_of(table, self._units)
        if stage not in self._units:
            raise InfrastructureError(
                f"{store.redact(self._work_dir)}: no {stage} artifact found; expected one of this run"
            )
        return self._units[stage][part]

    def read(self, part: int, table: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Columns of a part's table, checksum verified; raises what `artifacts.read_table` does."""
        return artifacts.read_table(self.folder(table), self.receipt(part, table), table, columns)

    def read_all(self, table: str, columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """`read` each part that has rows; yield the position of its first row and the columns."""
        for part in range(self.spans.n_parts):
            start, stop = self.spans.bounds(part)
            if stop > start:
                yield start, self.read(part, table, columns)

    def names(self, table: str) -> list[str]:
        """Names of the columns of a table, read from its first part."""
        names: list[str] = self._open(0, table, lambda file: file.schema_arrow.names)
        return names

    def peek(self, part: int, table: str, columns: Sequence[str]) -> pa.Table:
        """Columns of a part's table, without reading the rest of the file.

        Raises:
            DamagedFileError: the file is missing or not parquet.
        """
        return self._open(part, table, lambda file: file.read(columns=list(columns), use_threads=False))

    def peek_all(self, table: str, columns: Sequence[str]) -> list[pa.Table]:
        """`peek` of every part, in order."""
        with ThreadPoolExecutor(_THREADS) as threads:
            return list(threads.map(lambda part: self.peek(part, table, columns), range(self.spans.n_parts)))

    def column(self, table: str, name: str) -> pa.ChunkedArray:
        """A column of the whole pool, in canonical order."""
        return pa.concat_tables(self.peek_all(table, [name]))[name]

    def take(self, positions_N: NDArray[np.int64], table: str, columns: Sequence[str]) -> pa.Table:
        """Rows at canonical positions, in the given order; a position may occur more than once.

        Args:
            positions_N: int64 [N].
            table: file name.
            columns: of the table.

        Raises:
            DamagedFileError: as `peek`.
        """

        def read_rows(part: int, row_M: NDArray[np.int64]) -> pa.Table:
            return self.peek(part, table, columns).take(row_M)

        return self._gather(positions_N, read_rows, lambda: self.peek(0, table, columns).slice(0, 0))

    def take_merged(self, positions_N: NDArray[np.int64], columns: Sequence[str]) -> pa.Table:
        """Columns of decisions, or else of samples, at canonical positions.

        See `take`.
        """
        decided = [name for name in columns if name in schemas.DECISIONS.names]
        merged = self.take(positions_N, files.DECISIONS, decided) if decided else pa.table({})
        others = [name for name in columns if name not in decided]
        if others:
            sampled = self.take(positions_N, files.SAMPLES, others)
            for name in others:
                merged = merged.append_column(name, sampled[name])
        return merged.select(list(columns))

    def take_vectors(
        self, positions_N: NDArray[np.int64], table: str = files.EMBEDDINGS
    ) -> tuple[Float16, Float16]:
        """Image and text embeddings at canonical positions, from the row groups that hold them.

        Args:
            positions_N: int64 [N].
            table: file of one model's embeddings.

        Returns:
            float16 [N, D] each; [N, 0] for a side that the pool does not have.

        Raises:
            DamagedFileError: as `peek`.
            UserError: an array of the input that holds them is missing, or has another size or version.
        """

        def read_rows(part: int, row_M: NDArray[np.int64]) -> pa.Table:
            place = self._find_in_place(part, table)
            if place is None:
                return self._open(part, table, lambda file: _take_from_groups(file, row_M))
            found = self._open_in_place(part, place).take(row_M, list(place.arrays))
            return pa.table(dict(zip(place.arrays, map(vector_column, found), strict=True)))

        found = self._gather(positions_N, read_rows, lambda: self._no_vectors(table))
        none = np.zeros((len(positions_N), 0), np.float16)
        image, text = (
            vectors(found[name]) if name in found.column_names else none for name in ("image_emb", "text_emb")
        )
        return image, text

    def read_vectors(self, part: int, table: str, sides: Sequence[str]) -> Iterator[list[Float16]]:
        """Embeddings of a part, all rows in order, a block at a time; their checksum is verified.

        Args:
            part: its number.
            table: file of one model's embeddings.
            sides: `image_emb`, `text_emb` or both.

        Yields:
            float16 [M, D] for each side, of the same rows.

        Raises:
            InfrastructureError: as `artifacts.read_file`.
            UserError: an array of the input that holds them is missing or has changed.
        """
        place = self._find_in_place(part, table)
        if place is not None:
            yield from self._open_in_place(part, place).read_blocks(sides)
            return
        for group in artifacts.read_row_groups(self.folder(table), self.receipt(part, table), table, sides):
            yield [vectors(group[side]) for side in sides]

    def vector_sides(self, table: str) -> list[str]:
        """Which of `image_emb` and `text_emb` the pool has, from its first part."""
        place = self._find_in_place(0, table)
        return self.names(table) if place is None else list(place.arrays)

    def vector_bytes(self, part: int, table: str) -> int | None:
        """Bytes of a part's embeddings; None if it has none."""
        place = self._find_in_place(part, table)
        if place is not None:
            return place.size
        return next((file.size for file in self.receipt(part, table).files if file.name == table), None)

    def _no_vectors(self, table: str) -> pa.Table:
        """No rows, in columns of the width that the first part has."""
        if not self.spans.n_parts:
            return pa.table({})
        place = self._find_in_place(0, table)
        if place is None:
            return self._open(0, table, lambda file: file.schema_arrow.empty_table())
        none = vector_column(np.zeros((0, place.width), np.float16))
        return pa.table(dict.fromkeys(place.arrays, none))

    def _find_in_place(self, part: int, table: str) -> InPlace | None:
        return find_in_place(self.receipt(part, table)) if table == files.EMBEDDINGS else None

    def _open_in_place(self, part: int, place: InPlace) -> InPlaceReader:
        url = self._shard_urls.get(place.shard)
        if url is None:
            recorded = store.redact(shard_urls.locate(self._work_dir, self._embed_fingerprint))
            raise UserError(
                f"{recorded}: found no URL of the table {place.shard}; expected the one that the last run "
                "recorded; run again"
            )
        kept_N = None
        if self.receipt(part, files.SAMPLES).rows(files.SAMPLES) < place.rows:
            kept_N = self.peek(part, files.SAMPLES, ["offset"])["offset"].to_numpy()
        return InPlaceReader(place, url, kept_N)

    @cached_property
    def _shard_urls(self) -> Mapping[str, str]:
        return shard_urls.read(self._work_dir, self._embed_fingerprint)

    @property
    def _embed_fingerprint(self) -> str:
        if self._embed is None:
            raise ValueError("Parts: embeddings in place cannot be read without the fingerprint of `embed`")
        return self._embed

    def _gather(
        self,
        positions_N: NDArray[np.int64],
        read_rows: Callable[[int, NDArray[np.int64]], pa.Table],
        read_nothing: Callable[[], pa.Table],
    ) -> pa.Table:
        """Rows of several parts, in the order of `positions_N`."""
        pieces = list(self.spans.by_part(positions_N))
        if not pieces:
            return read_nothing()
        with ThreadPoolExecutor(min(_THREADS, len(pieces))) as threads:
            tables = list(threads.map(lambda piece: read_rows(piece[0], piece[2]), pieces))
        index_N = np.concatenate([index_M for _, index_M, _ in pieces])
        found = pa.concat_tables(tables)
        is_in_order = bool((index_N[1:] > index_N[:-1]).all())
        return found if is_in_order else found.take(np.argsort(index_N, kind="stable"))

    def _open(self, part: int, table: str, read: Callable[[pq.ParquetFile], Any]) -> Any:
        receipt = self.receipt(part, table)
        url = artifacts.unit_url(self.folder(table), receipt.key, table)
        record = next(file for file in receipt.files if file.name == table)
        try:
            with open_parquet(url, record) as file:
                return read(file)
        except FileNotFoundError as error:
            raise artifacts.describe_damage(url, "not found, but its receipt exists", listed=True) from error
        except (OSError, pa.ArrowException, InfrastructureError) as error:
            # pyarrow raises an OSError without a number for a damaged file. A remote file that is too
            # short is an InfrastructureError, as is a store that does not answer.
            if getattr(error, "errno", None) is not None:
                raise
            found = store.info(url).size
            if found != record.size:
                fault = f"found {found} bytes; expected {record.size} as in its receipt"
                raise artifacts.describe_damage(url, fault, listed=True) from error
            if isinstance(error, InfrastructureError):
                raise
            raise artifacts.describe_damage(url, f"cannot be read: {one_line(error)}") from error


def _take_from_groups(file: pq.ParquetFile, row_M: NDArray[np.int64]) -> pa.Table:
    """Rows of a parquet file, in the given order, from the row groups that hold them."""
    groups = Spans.of_rows([file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)])
    pieces = list(groups.by_part(row_M))
    found = pa.concat_tables(file.read_row_group(group).take(rows) for group, _, rows in pieces)
    return found.take(np.argsort(np.concatenate([index for _, index, _ in pieces]), kind="stable"))
