"""What all steps share: the job, the names of their units, and the rows of a part that take part in the search."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from d2prune.errors import InfrastructureError, UserError
from d2prune.graph import exchange
from d2prune.graph.cut_off import CutOff
from d2prune.graph.params import GraphParams, Layout
from d2prune.knn.duplicates import Groups
from d2prune.knn.features import NoDirectionError
from d2prune.parts.features import read_embeddings, unit_features
from d2prune.parts.files import SAMPLES
from d2prune.parts.spans import Spans
from d2prune.store import artifacts
from d2prune.store.artifacts import Receipt

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

LOCAL_GROUPS = "groups.npy"
COPIES = "copies.bin"
MEMBERS_OF_GROUPS = "groups.bin"

COPY = np.dtype([("position", "<i8")])
"""A part's distinct row that repeats an earlier row of another part."""
GROUP_MEMBER = np.dtype([("representative", "<i8"), ("position", "<i8")])
"""A row with the bytes of the representative, which is the first of its group; the first K of a group are recorded."""


@dataclass(frozen=True)
class Job:
    """One graph: what its units share. Everything here but `params` and the embed artifact is layout or derived.

    Attributes:
        embed_folder: `work_dir/embed`.
        parts: embed's units, in canonical order, P of them.
        embed_fingerprint: of the embed artifact.
        folder: `work_dir/graph`.
        params: of the stage.
        layout: how the work is cut up.
        cut_off: which samples are left out; None: none.
        buckets: of hashes.
        members: [P+1], distinct rows of the pool before each part; known once `copies` is done.
        partitions: of the lists.
        slices: of the parts; a unit of the search serves the rows of one slice. Known once `assign` is done.
    """

    embed_folder: str
    parts: tuple[Receipt, ...]
    embed_fingerprint: str
    folder: str
    params: GraphParams
    layout: Layout
    cut_off: CutOff | None = None
    buckets: int = 1
    members: tuple[int, ...] = ()
    partitions: int = 1
    slices: int = 1

    @property
    def n_best(self) -> int:
        """K of the search: the row itself is among its nearest."""
        return self.params.n_neighbors + 1

    @cached_property
    def spans(self) -> Spans:
        """Canonical positions of the parts."""
        return Spans.of_rows([receipt.rows(self.params.embeddings) for receipt in self.parts])

    @property
    def starts(self) -> Int64:
        """int64 [P+1], canonical position of each part's first row."""
        return self.spans.starts

    @property
    def slice_bounds(self) -> list[int]:
        """[S+1], the first part of each slice."""
        return [len(self.parts) * number // self.slices for number in range(self.slices + 1)]

    def key(self, step: str, index: int = 0) -> str:
        """The unit's key: of all that decides its bytes, the layout only where it does."""
        cut: Any = {"distinct": self.buckets, "copies": self.buckets}.get(step)
        cut = self.partitions if step in ("layout", "assign") else cut
        cut = (self.partitions, self.slices) if step == "search" else cut
        return artifacts.unit_key(f"{step}-{index:08d}", self.params, self.embed_fingerprint, cut)

    def url(self, step: str, index: int, name: str) -> str:
        """Where a unit's file lies."""
        return artifacts.unit_url(self.folder, self.key(step, index), name)

    def urls(self, step: str, count: int, name: str) -> list[str]:
        """The same file of all units of a step."""
        return [self.url(step, index, name) for index in range(count)]

    def receipt(self, step: str, index: int = 0) -> Receipt:
        """The receipt of a unit that this one needs.

        Raises:
            InfrastructureError: it has gone.
        """
        receipt = artifacts.read_receipt(self.folder, self.key(step, index))
        if receipt is None:
            raise InfrastructureError(f"{self.url(step, index, artifacts.RECEIPT)}: gone; run again")
        return receipt

    def array(self, step: str, index: int, name: str) -> NDArray[Any]:
        """An array that `arrays` wrote, checked against its receipt."""
        loaded: NDArray[Any] = np.load(
            io.BytesIO(artifacts.read_file(self.folder, self.receipt(step, index), name)), allow_pickle=False
        )
        return loaded

    def commit(
        self,
        step: str,
        index: int,
        files: Mapping[str, pa.Table | bytes | NDArray[Any]],
        counters: Mapping[str, int] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> Receipt:
        """Commit a unit; an array becomes an .npy file."""
        contents = {
            name: _npy(file) if isinstance(file, np.ndarray) else file for name, file in files.items()
        }
        return artifacts.commit_unit(self.folder, self.key(step, index), contents, counters, facts)

    def with_layout(self, **changes: Any) -> Job:
        """The job with what has become known."""
        return replace(self, **changes)


def _npy(array: NDArray[Any]) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=False)
    return sink.getvalue()


@dataclass(frozen=True)
class StepUnit:
    """A unit of a step: part, bucket or partition `index`."""

    key: str
    index: int


@dataclass(frozen=True)
class StepWorker:
    """Runs the units of one step; `step` is a function of this package."""

    job: Job
    step: Callable[[Job, int], Receipt]

    def __call__(self, unit: StepUnit) -> Receipt:
        """Do the unit and commit it."""
        return self.step(self.job, unit.index)


def read_raw(job: Job, part: int) -> NDArray[Any]:
    """A part's embeddings as they are stored, [N, D], or [N, 2 D] for both sides."""
    return read_embeddings(job.embed_folder, job.parts[part], job.params.embeddings, job.params.features)


def features_of(job: Job, raw_ND: NDArray[Any], first_row: int = 0) -> Float32:
    """The rows that distances are measured on; a row's bits depend on that row alone."""
    return unit_features(job.params.features, raw_ND, first_row)


def checked_features(job: Job, part: int) -> tuple[NDArray[Any], Float32]:
    """`read_raw` of a part, and `features_of` that; the first reading, which meets what cannot be normalised.

    Raises:
        UserError: names the shard and key of an embedding without direction.
    """
    raw_ND, start = read_raw(job, part), int(job.starts[part])
    try:
        return raw_ND, features_of(job, raw_ND, start)
    except NoDirectionError as error:
        row = artifacts.read_table(job.embed_folder, job.parts[part], SAMPLES, ["shard", "key"])
        shard, key = (row[name][error.row - start].as_py() for name in ("shard", "key"))
        sample = f" (shard {shard}, key {key})"
        # A plain one, as it may cross to another process.
        raise UserError(str(NoDirectionError(error.name, error.row, error.fault, sample))) from None


@dataclass(frozen=True)
class LocalGroups:
    """The rows of a part that take part, by their bytes.

    Attributes:
        kept_N: int64 [N], rows that take part (the cut-off leaves out the others), ascending.
        group_N: int64 [N], the group of each.
        first_Q: int64 [Q], the first row of each group, ascending: the part's distinct rows, its queries.
    """

    kept_N: Int64
    group_N: Int64
    first_Q: Int64


def local_groups(job: Job, part: int) -> LocalGroups:
    """What `distinct` found out about a part."""
    group_N = job.array("distinct", part, LOCAL_GROUPS)
    kept_N = np.flatnonzero(group_N >= 0)
    _, first_Q = np.unique(group_N[kept_N], return_index=True)
    return LocalGroups(kept_N, group_N[kept_N], kept_N[first_Q])


@dataclass(frozen=True)
class PartRows:
    """A part's distinct rows; `features_of` those of `raw` that are needed, a block at a time where all are.

    Attributes:
        positions: int64 [Q], canonical, ascending.
        raw: [Q, D] as stored.
        is_member: bool [Q], whether no earlier part holds the same bytes: then it stands for all of
            them in its list.
    """

    positions: Int64
    raw: NDArray[Any]
    is_member: NDArray[np.bool_]

    def members(self) -> tuple[Int64, NDArray[Any]]:
        """Positions and raw rows of the members."""
        if self.is_member.all():
            return self.positions, self.raw
        return self.positions[self.is_member], self.raw[self.is_member]


def read_part(job: Job, part: int) -> PartRows:
    """The distinct rows of a part, from its embeddings."""
    first_Q = local_groups(job, part).first_Q
    positions_Q = first_Q + job.starts[part]
    raw_QD = read_raw(job, part)
    if len(first_Q) < len(raw_QD):
        raw_QD = raw_QD[first_Q]
    copies = exchange.concatenated(job.urls("copies", job.buckets, COPIES), COPY, part)["position"]
    return PartRows(positions_Q, raw_QD, ~np.isin(positions_Q, copies))


def members_of_groups(job: Job, part: int) -> exchange.Records:
    """GROUP_MEMBER records of the representatives in a part; only groups of several rows have any."""
    return exchange.concatenated(job.urls("copies", job.buckets, MEMBERS_OF_GROUPS), GROUP_MEMBER, part)


def groups_of(positions_M: Int64, members_G: exchange.Records) -> tuple[Groups, Int64]:
    """Representatives with the rows they stand for, as `duplicates.expand` wants them.

    Args:
        positions_M: int64 [M], canonical positions of representatives, each once, in any order.
        members_G: GROUP_MEMBER records of those among them that have any.

    Returns:
        The groups, and the canonical positions [N] of their rows.
    """
    alone_A = np.setdiff1d(positions_M, members_G["representative"])
    representatives_N = np.concatenate([alone_A, members_G["representative"]])
    positions_N = np.concatenate([alone_A, members_G["position"]])
    order_N = np.lexsort((positions_N, representatives_N))
    representatives_N, positions_N = representatives_N[order_N], positions_N[order_N]
    _, first_M, group_N = np.unique(representatives_N, return_index=True, return_inverse=True)
    indptr = np.append(first_M, len(positions_N)).astype(np.int64)
    return Groups(
        first_M.astype(np.int64), group_N.astype(np.int64), indptr, np.arange(len(positions_N))
    ), positions_N


def units(job: Job, step: str, count: int) -> Sequence[StepUnit]:
    """The units of a step."""
    return [StepUnit(job.key(step, index), index) for index in range(count)]
