"""A finished run, read lazily: its manifests, and its columns by canonical position.

Reads the embed, graph, dedup, rank and select artifacts of one selection; writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from d2prune import store
from d2prune.d2.gamma import describe_gamma
from d2prune.embed.params import EmbedParams
from d2prune.errors import UserError
from d2prune.parts import files, shard_urls
from d2prune.parts.reader import Parts
from d2prune.runs.selections import choose_selection, list_selections
from d2prune.store import artifacts, schemas
from d2prune.store.artifacts import Manifest

if TYPE_CHECKING:
    # Imports torch, which takes seconds that `d2prune explain` would wait for.
    from d2prune.knn.feature_kind import FeatureKind


@dataclass(frozen=True)
class FinishedRun:
    """One selection with the artifacts it was made from.

    Attributes:
        work_dir: URL of the folder with the artifacts.
        embed: unit i belongs to input shard i.
        graph: unit i is row-aligned with unit i of `embed`.
        rank: aligned in the same way.
        select: aligned in the same way.
        dedup: aligned in the same way; None if the run drops no duplicates.
    """

    work_dir: str
    embed: Manifest
    graph: Manifest
    rank: Manifest
    select: Manifest
    dedup: Manifest | None = None

    def __len__(self) -> int:
        """Embedded samples."""
        return len(self.parts)

    @cached_property
    def parts(self) -> Parts:
        """The pool's columns, whichever stage wrote them."""
        stages = {"embed": self.embed, "graph": self.graph, "rank": self.rank, "select": self.select}
        if self.dedup is not None:
            stages["dedup"] = self.dedup
        return Parts.of(self.work_dir, stages)

    @cached_property
    def score_name(self) -> str:
        """The score that difficulty was computed from."""
        return str(self.rank.params.get("difficulty", "difficulty"))

    @cached_property
    def method(self) -> str:
        """What ranked the pool: `d2`, or another `select.method`."""
        return str((self.rank.params.get("baseline") or {}).get("method", "d2"))

    @cached_property
    def offset(self) -> float:
        """What was added to the score to give difficulty."""
        return float(self.rank.facts.get("offset") or 0.0)

    @property
    def gammas(self) -> tuple[float, float]:
        """The decays of the forward and the reverse messages, as numbers."""
        forward, reverse = (self.rank.facts.get(name) or 0.0 for name in ("gamma_forward", "gamma_reverse"))
        return float(forward), float(reverse)

    @property
    def gamma_texts(self) -> tuple[str, str]:
        """The decays as text: the numbers, and the multiples they come from."""
        forward, reverse = (self.rank.params.get(name, 0.0) for name in ("gamma_forward", "gamma_reverse"))
        return describe_gamma(forward, self.gammas[0]), describe_gamma(reverse, self.gammas[1])

    @property
    def features(self) -> FeatureKind:
        """The embeddings that distances are measured on."""
        return cast("FeatureKind", self.graph.params.get("features", "image+text"))

    @property
    def embeddings_file(self) -> str:
        """The file of each embed part that holds them."""
        return str(self.graph.params.get("embeddings", files.EMBEDDINGS))

    @property
    def has_images(self) -> bool:
        """Whether the input is tars; tables of embeddings hold no images."""
        return "columns" not in self.embed.params

    @property
    def max_pixels(self) -> int:
        """Images with more are not decoded: `embed.max_pixels`, or its default if the input is no tars."""
        return int(self.embed.params.get("max_pixels", EmbedParams.max_pixels))

    @cached_property
    def urls(self) -> Mapping[str, str]:
        """Shard name -> URL of the tar, for the shards whose URL the run recorded."""
        return shard_urls.read(self.work_dir, self.embed.fingerprint)

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Columns of the samples besides those that every pool has."""
        if not self.embed.units:
            return ()
        usual = schemas.samples().names
        return tuple(name for name in self.parts.names(files.SAMPLES) if name not in usual)

    @cached_property
    def _keeper_N(self) -> NDArray[np.int64]:
        """The keeper of each sample, or -1; 8 bytes a sample."""
        keepers = self.parts.column(files.DUPLICATES, "keeper")
        return np.asarray(keepers.to_numpy(), np.int64)

    def duplicates(self, position: int) -> NDArray[np.int64]:
        """Canonical positions of the samples that were dropped for a sample."""
        if self.dedup is None:
            return np.zeros(0, np.int64)
        return np.flatnonzero(self._keeper_N == position)

    def keeper(self, position: int) -> tuple[int, float | None] | None:
        """The sample kept in place of a duplicate, and their cosine if it is a near-duplicate; or None."""
        if self.dedup is None:
            return None
        columns = ["dropped", "keeper", "sq_distance"]
        row = self.parts.take(np.array([position]), files.DUPLICATES, columns).to_pylist()[0]
        if not row["dropped"]:
            return None
        sq_distance = row["sq_distance"]
        return row["keeper"], None if sq_distance is None else 1 - sq_distance / 2

    def neighbours(self, position: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Canonical positions of a sample's neighbours, and the squared distances to them."""
        table = self.parts.take(np.array([position]), files.NEIGHBORS, ["indices", "sq_distances"])
        row = table.to_pylist()[0]
        return np.asarray(row["indices"] or [], np.int64), np.asarray(row["sq_distances"] or [], np.float32)


def open_run(work_dir: str, run: str | None = None) -> FinishedRun:
    """Open a finished selection.

    Args:
        work_dir: URL of the folder with the artifacts.
        run: the id of a run as `d2prune runs` prints it, a selection's fingerprint, or the beginning of
            either; None: the newest selection.

    Raises:
        UserError: no selection matches, more than one does, or an artifact it was made from is gone.
    """
    store.check_folder("work_dir", work_dir)
    return open_selection(work_dir, choose_selection(list_selections(work_dir), run).fingerprint)


def open_selection(
    work_dir: str,
    fingerprint: str,
    read: Callable[[str, str], Manifest | None] = artifacts.read_manifest,
) -> FinishedRun:
    """Open the selection with a fingerprint.

    Args:
        work_dir: URL.
        fingerprint: of the `select` artifact.
        read: `artifacts.read_head` instead reads parameters and facts alone; the run has no samples then.

    Raises:
        UserError: an artifact it was made from is gone.
    """

    def open_stage(stage: str, identity: str) -> Manifest:
        manifest = read(store.join(work_dir, stage), identity)
        if manifest is None:
            raise UserError(
                f"{store.redact(work_dir)}: found no {stage} artifact {identity}; expected it, since this "
                "selection was made from it"
            )
        return manifest

    select = open_stage("select", fingerprint)
    rank = open_stage("rank", select.inputs["rank"])
    graph = open_stage("graph", rank.inputs["graph"])
    embed = open_stage("embed", graph.inputs["embed"])
    dedup = open_stage("dedup", rank.inputs["dedup"]) if "dedup" in rank.inputs else None
    return FinishedRun(work_dir, embed, graph, rank, select, dedup)
