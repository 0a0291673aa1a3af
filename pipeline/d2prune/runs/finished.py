"""A finished run, read lazily: its manifests, and columns of any rows by canonical position.

Reads the embed, graph, rank and select artifacts of one selection and writes nothing. A canonical
position is the rows of all earlier parts plus the row, as everywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from d2prune import store
from d2prune.embed import shard_urls
from d2prune.errors import UserError
from d2prune.parts import files
from d2prune.parts.reader import Parts
from d2prune.store import artifacts, schemas
from d2prune.store.artifacts import Manifest


@dataclass(frozen=True)
class FinishedRun:
    """One selection with everything it was made from.

    Attributes:
        work_dir: where the artifacts lie.
        embed: unit i belongs to input shard i.
        graph: rows aligned with embed's; None where the selection was made without one.
        rank: likewise.
        select: likewise.
        others: fingerprints of the other selections in `work_dir`.
    """

    work_dir: str
    embed: Manifest
    graph: Manifest | None
    rank: Manifest
    select: Manifest
    others: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.parts)

    @cached_property
    def parts(self) -> Parts:
        """The pool's columns, of whichever stage."""
        stages = {"embed": self.embed, "graph": self.graph, "rank": self.rank, "select": self.select}
        return Parts(self.work_dir, {name: made.units for name, made in stages.items() if made is not None})

    @cached_property
    def score_name(self) -> str:
        """What difficulty was made from."""
        return str(self.rank.params.get("difficulty", "difficulty"))

    @cached_property
    def method(self) -> str:
        """`d2`, or what it was compared with."""
        return str((self.rank.params.get("baseline") or {}).get("method", "d2"))

    @cached_property
    def offset(self) -> float:
        """What was added to the score to make difficulty."""
        return float(self.rank.facts.get("offset") or 0.0)

    @cached_property
    def _distances(self) -> Mapping[str, object]:
        return (self.rank.params.get("baseline") or {}) if self.graph is None else self.graph.params

    @property
    def features(self) -> str:
        """What distances are measured on: `image`, `text` or `image+text`."""
        return str(self._distances.get("features", "image+text"))

    @property
    def embeddings(self) -> str:
        """The file of each embed part that holds them."""
        return str(self._distances.get("embeddings", schemas.embeddings_file()))

    @cached_property
    def urls(self) -> Mapping[str, str]:
        """Shard name -> URL of the tar, as far as the run left it."""
        return shard_urls.read(self.work_dir, self.embed.fingerprint)

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Columns that the samples carry beside those that every pool has."""
        usual = {"shard", "key", "uid", "clip_score", "caption", "width", "height", "offset", "size"}
        if not self.embed.units:
            return ()
        return tuple(name for name in self.parts.names(files.SAMPLES) if name not in usual)

    def neighbours(self, position: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Canonical positions of a sample's neighbours and the squared distances to them; empty without a graph."""
        if self.graph is None:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        row = self.parts.take(np.array([position]), files.NEIGHBORS, ["indices", "sq_distances"]).to_pylist()[
            0
        ]
        return np.asarray(row["indices"] or [], np.int64), np.asarray(row["sq_distances"] or [], np.float32)


def open_run(work_dir: str, run: str | None = None) -> FinishedRun:
    """The newest selection in `work_dir`, or the one whose fingerprint starts with `run`.

    Raises:
        UserError: there is none, or more than one starts so.
    """
    found = store.list_files(store.join(work_dir, "select", "*", artifacts.MANIFEST))
    urls = {file.url.rstrip("/").split("/")[-2]: file.url for file in found}
    if not urls:
        raise UserError(
            f"{store.redact(work_dir)}: no finished selection (select/*/{artifacts.MANIFEST}); expected the work_dir "
            f"of a run that reached `select`"
        )
    if run is None:
        chosen = (
            max(urls, key=lambda name: (store.modified(urls[name]), name))
            if len(urls) > 1
            else next(iter(urls))
        )
    else:
        fitting = sorted(name for name in urls if name.startswith(run))
        if len(fitting) != 1:
            names = ", ".join(fitting or sorted(urls))
            raise UserError(f"--run {run}: {len(fitting)} selections start so; expected one of {names}")
        (chosen,) = fitting
    select = _manifest(work_dir, "select", chosen)
    rank = _manifest(work_dir, "rank", select.inputs["rank"])
    graph = _manifest(work_dir, "graph", rank.inputs["graph"]) if "graph" in rank.inputs else None
    embed = _manifest(work_dir, "embed", (graph or rank).inputs["embed"])
    return FinishedRun(work_dir, embed, graph, rank, select, tuple(sorted(urls.keys() - {chosen})))


def _manifest(work_dir: str, stage: str, fingerprint: str) -> Manifest:
    found = artifacts.read_manifest(store.join(work_dir, stage), fingerprint)
    if found is None:
        raise UserError(
            f"{store.redact(work_dir)}: the {stage} artifact {fingerprint} that this selection was made from is gone"
        )
    return found
