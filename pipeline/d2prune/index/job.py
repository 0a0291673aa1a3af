"""What all units of one index share: the run, where its lists come from, and the rows of a part.

Reads the embed and graph artifacts of a finished run. The lists are those of the graph if it stored them
(`graph/steps/search.py`); a graph that was built in memory, or has no edges, stored none, and the index
trains its own. Rows that the cut-off keeps out of the graph are in the index, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import UserError
from d2prune.graph.latest import trained_key
from d2prune.graph.previous import unit_inputs
from d2prune.graph.steps.assign import LISTS
from d2prune.graph.steps.quantise import CENTROIDS, SIZES
from d2prune.graph.steps.step import step_key
from d2prune.graph.trained import read_trained
from d2prune.index.views import import_faiss, row_bytes
from d2prune.knn.quantiser import Quantiser
from d2prune.parts.features import read_embeddings, side_names, unit_features
from d2prune.runs.artifact_kinds import STAGE_NAME, fingerprint_of
from d2prune.runs.finished import FinishedRun
from d2prune.store import artifacts
from d2prune.store.artifacts import Receipt
from d2prune.store.completeness import find_complete_units
from d2prune.store.npy import load_array

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

# Rows normalised and rounded at a time.
_CODED = 1024


@dataclass(frozen=True)
class IndexJob:
    """One index to build. Attributes from `bounds` on are filled in as steps complete.

    Attributes:
        run: the finished run.
        threads: of each worker; changes speed only.
        lists_of_graph: receipts of the graph's units of lists, one per part; empty if there are none.
        bounds: [K+1], the first list of each partition.
        n_dims: D of a row.
        layout_key: of the unit with the centroids and the sizes of the lists.
    """

    run: FinishedRun
    threads: int
    lists_of_graph: tuple[Receipt, ...]
    bounds: tuple[int, ...] = ()
    n_dims: int = 0
    layout_key: str = ""

    @property
    def folder(self) -> str:
        """URL of `work_dir/index`."""
        return store.join(self.run.work_dir, STAGE_NAME)

    @property
    def graph_folder(self) -> str:
        """URL of `work_dir/graph`."""
        return store.join(self.run.work_dir, "graph")

    @property
    def fingerprint(self) -> str:
        """Identity of the index: that of its graph."""
        return fingerprint_of(self.run.graph.fingerprint)

    @property
    def n_parts(self) -> int:
        """Number of parts."""
        return len(self.run.embed.units)

    @property
    def n_partitions(self) -> int:
        """K."""
        return len(self.bounds) - 1

    @property
    def assigns(self) -> bool:
        """Whether the graph leaves rows without a list."""
        return not self.lists_of_graph or self.run.graph.counters.get("cut_off", 0) > 0

    def key(self, step: str, index: int = 0) -> str:
        """Key of a unit."""
        layout = self.bounds if step in ("scatter", "partition") else None
        return artifacts.unit_key(f"{step}-{index:08d}", self.fingerprint, bool(self.lists_of_graph), layout)

    def array(self, step: str, index: int, name: str) -> NDArray[Any]:
        """An array that a unit committed.

        Raises:
            DamagedFileError: the unit is damaged, or no longer exists.
        """
        return load_array(artifacts.read_file(self.folder, self._receipt(self.key(step, index)), name))

    def _receipt(self, key: str) -> Receipt:
        receipt = artifacts.read_receipt(self.folder, key)
        if receipt is None:
            url = artifacts.unit_url(self.folder, key, artifacts.RECEIPT)
            raise artifacts.describe_damage(url, "not found, but the unit was complete", listed=True)
        return receipt

    def find_centroids(self) -> Float32:
        """Centroids of the lists, float32 [L, D], before the layout is known."""
        if not self.lists_of_graph:
            return self.array("train", 0, CENTROIDS)
        return read_trained(self.graph_folder, self.run.graph.facts["quantiser"]).centroids

    @property
    def centroids_url(self) -> str:
        """URL of what `find_centroids` returns."""
        if not self.lists_of_graph:
            return artifacts.unit_url(self.folder, self.key("train"), CENTROIDS)
        return artifacts.unit_url(
            self.graph_folder, trained_key(self.run.graph.facts["quantiser"]), CENTROIDS
        )

    def layout(self) -> tuple[Float32, Int64]:
        """Centroids and sizes of the lists, float32 [L, D] and int64 [L]."""
        receipt = self._receipt(self.layout_key)
        centroids, sizes = (artifacts.read_file(self.folder, receipt, name) for name in (CENTROIDS, SIZES))
        return load_array(centroids), load_array(sizes)

    def lists(self, part: int) -> Int32:
        """The list of each row of a part, int32 [N]."""
        return self.array("lists", part, LISTS) if self.assigns else self.read_graph_lists(part)

    def read_graph_lists(self, part: int) -> Int32:
        """The list of each row of a part as the graph stored it, -1 for none."""
        return load_array(artifacts.read_file(self.graph_folder, self.lists_of_graph[part], LISTS))

    def rows(self, part: int) -> Float32:
        """The rows of a part that distances are measured on, float32 [N, D].

        Raises:
            UserError: the pool has no such embeddings, or one cannot be normalised.
        """
        run = self.run
        raw_ND = read_embeddings(run.parts, part, run.embeddings_file, run.features)
        return unit_features(run.features, raw_ND, int(run.parts.spans.starts[part]))

    def codes(self, part: int) -> NDArray[np.uint8]:
        """The rows of a part in float16, as uint8 [N, 2 D].

        Works on a few rows at a time, which stay in the cache: for a whole part, three times the CPU time.

        Raises:
            UserError: as `rows`.
        """
        faiss = import_faiss()
        run = self.run
        kind, (start, stop) = run.features, run.parts.spans.bounds(part)
        # numpy takes twice as long to round to float16.
        to_half = faiss.ScalarQuantizer(self.n_dims, faiss.ScalarQuantizer.QT_fp16)
        codes = np.empty((stop - start, 2 * self.n_dims), np.uint8)
        done = 0
        for sides in run.parts.read_vectors(part, run.embeddings_file, side_names(kind)):
            for low in range(0, len(sides[0]), _CODED):
                raw_MD = np.concatenate([side[low : low + _CODED] for side in sides], axis=1)
                rows = unit_features(kind, raw_MD, start + done)
                codes[done : done + len(rows)] = to_half.compute_codes(rows)
                done += len(rows)
        return codes

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in the index."""
        return row_bytes(self.n_dims)


def open_job(run: FinishedRun, threads: int) -> IndexJob:
    """Find out where the lists come from.

    Raises:
        UserError: the pool is empty, or lacks the embeddings that the graph's settings name.
    """
    names = [f"{side}_emb" for side in run.features.split("+")]
    if not len(run):
        raise UserError(f"{store.redact(run.work_dir)}: found no samples; expected at least one to index")
    found = run.parts.vector_sides(run.embeddings_file)
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(
            f"{store.redact(run.work_dir)}: found no column {missing[0]} in {run.embeddings_file}; "
            f"expected it, since the graph is of graph.features {run.features}"
        )
    graph = run.graph
    stored: tuple[Receipt, ...] = ()
    if graph.facts.get("quantiser"):
        folder = store.join(run.work_dir, "graph")
        inputs = unit_inputs({"inputs": graph.inputs, "facts": graph.facts})
        keys = [step_key("lists", part, graph.params, inputs) for part in range(len(graph.units))]
        complete = find_complete_units(folder, keys)
        if len(complete) == len(keys):
            stored = tuple(complete[key] for key in keys)
    return IndexJob(run, threads, stored)


def assign_rows(quantiser: Quantiser, rows_ND: Float32, threads: int) -> Int32:
    """Return the list of each row, int32 [N]."""
    return quantiser.find_lists(rows_ND, 1, threads)[:, 0]
