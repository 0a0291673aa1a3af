"""The job: what all units of one graph share, and how they find and commit each other's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from d2prune.errors import InfrastructureError
from d2prune.graph.cut_off import CutOff
from d2prune.graph.params import GraphParams, Layout
from d2prune.graph.previous import Previous
from d2prune.graph.steps.step import Step, step_key
from d2prune.knn.recall import Recall
from d2prune.parts.files import SAMPLES
from d2prune.parts.reader import Parts
from d2prune.parts.spans import Spans
from d2prune.store import artifacts
from d2prune.store.artifacts import Receipt
from d2prune.store.npy import load_array, npy_bytes

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Job:
    """One graph to build. Only `params` and `inputs` decide it; the rest is layout or derived.

    The attributes from `members` on are filled in as steps complete, by `Step.after`.

    Attributes:
        steps: records of all steps; they say which layout values a unit key contains.
        pool: the pool, P parts, with the units of embed and those that the cut-off is read from.
        inputs: fingerprints of the embed artifact, `embed`, and of the quantiser if one is given,
            `quantiser`.
        folder: `work_dir/graph`.
        params: of the stage.
        layout: how the work is divided.
        cut_off: which samples are excluded; None: none.
        buckets: of the row hashes.
        members: [P+1], rows before each part that are distinct: within their part after `distinct`,
            within the pool after `copies`.
        row_bytes: of one row as stored.
        partitions: of the lists.
        nlist: number of lists; 0: exact, without lists.
        nprobe: lists that each row visits; 0 if exact.
        visitors: rows that visit each partition.
        slices: of the parts; a unit of the search serves the rows of one slice.
        wave_bounds: [W+1], the first partition of each wave; rows are sent to those of one wave at a time.
        recall: measured; None if the pool is too small for a sample.
        rows: that are not cut off.
        trained: fingerprint of the quantiser that is used; None if the search is exact.
        unused: why the quantiser that is given is not used; None if it is.
        previous: the graph that this one is an increment of.
        abandoned: the job with the given quantiser, if it missed the target recall.
    """

    steps: tuple[Step, ...]
    pool: Parts
    inputs: Mapping[str, str]
    folder: str
    params: GraphParams
    layout: Layout
    cut_off: CutOff | None = None
    buckets: int = 1
    members: tuple[int, ...] = ()
    row_bytes: int = 0
    partitions: int = 1
    nlist: int = 0
    nprobe: int = 0
    visitors: tuple[int, ...] = ()
    slices: int = 1
    wave_bounds: tuple[int, ...] = ()
    recall: Recall | None = None
    rows: int = 0
    trained: str | None = None
    unused: str | None = None
    previous: Previous | None = None
    abandoned: Job | None = None

    @property
    def given(self) -> str | None:
        """Fingerprint of the quantiser that is given."""
        return self.inputs.get("quantiser")

    @property
    def origin(self) -> str | None:
        """Fingerprint of the previous graph, which decides what the steps of an increment exchange."""
        return None if self.previous is None else self.previous.fingerprint

    @property
    def embed_folder(self) -> str:
        """URL of `work_dir/embed`."""
        return self.pool.folder(SAMPLES)

    @property
    def parts(self) -> Sequence[Receipt]:
        """Units of the embed artifact, in canonical order."""
        return self.pool.units("embed")

    @property
    def n_best(self) -> int:
        """Nearest rows that a search keeps: the k neighbours and the row itself."""
        return self.params.n_neighbors + 1

    @property
    def spans(self) -> Spans:
        """Canonical positions of the parts."""
        return self.pool.spans

    @property
    def starts(self) -> Int64:
        """int64 [P+1], canonical position of each part's first row."""
        return self.spans.starts

    @property
    def slice_bounds(self) -> list[int]:
        """[S+1], the first part of each slice."""
        return [len(self.parts) * number // self.slices for number in range(self.slices + 1)]

    @property
    def waves(self) -> int:
        """Number of waves, 0 before it is known."""
        return max(0, len(self.wave_bounds) - 1)

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest records about the graph."""
        facts: dict[str, Any] = {
            "n_neighbors": self.params.n_neighbors,
            "nlist": self.nlist,
            "nprobe": self.nprobe,
        }
        if self.trained is not None:
            facts["quantiser"] = self.trained
        if self.unused is not None:
            facts["unused_quantiser"] = self.unused
        if self.recall is not None:
            facts |= {
                "recall": self.recall.value,
                "recall_low": self.recall.low,
                "recall_high": self.recall.high,
                "recall_queries": self.recall.n_queries,
            }
        return facts

    def key(self, step: str, index: int = 0) -> str:
        """Key of a unit: identifies everything that decides its bytes."""
        record = next(record for record in self.steps if record.name == step)
        layout = attrgetter(*record.layout)(self) if record.layout else None
        return step_key(step, index, self.params, self.inputs, layout)

    def url(self, step: str, index: int, name: str) -> str:
        """URL of a unit's file."""
        return artifacts.unit_url(self.folder, self.key(step, index), name)

    def urls(self, step: str, count: int, name: str) -> list[str]:
        """URLs of the same file of units 0 to `count` - 1."""
        return [self.url(step, index, name) for index in range(count)]

    def receipt(self, step: str, index: int = 0) -> Receipt:
        """The receipt of a complete unit.

        Raises:
            InfrastructureError: it no longer exists.
        """
        receipt = artifacts.read_receipt(self.folder, self.key(step, index))
        if receipt is None:
            raise InfrastructureError(
                f"{self.url(step, index, artifacts.RECEIPT)}: not found; run again to rebuild the unit"
            )
        return receipt

    def array(self, step: str, index: int, name: str) -> NDArray[Any]:
        """An array that a unit committed, checked against its receipt."""
        return load_array(artifacts.read_file(self.folder, self.receipt(step, index), name))

    def commit(
        self,
        step: str,
        index: int,
        files: Mapping[str, pa.Table | bytes | NDArray[Any]],
        counters: Mapping[str, int] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> Receipt:
        """Commit a unit; arrays become .npy files."""
        contents = {
            name: npy_bytes(file) if isinstance(file, np.ndarray) else file for name, file in files.items()
        }
        return artifacts.commit_unit(self.folder, self.key(step, index), contents, counters, facts)
