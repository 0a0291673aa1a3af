"""The worker that computes the cells of the coreset benchmark; see `benchmarks.coreset`.

Reads the data set. Writes one file per cell below `cells/`, and below `scores/`, for each seed, the
log and the features of the model trained on all samples. Invariant: the file of a cell is written
last and atomically.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.cells import Cell, keep
from benchmarks.coreset import data as coreset_data
from benchmarks.coreset import methods as coreset_methods
from benchmarks.coreset.recipe import Recipe
from benchmarks.coreset.subgraphs import Subgraphs
from benchmarks.coreset.training import make_trainer
from d2prune import store
from d2prune.scores import TrainingLog

FULL = "all samples"


@dataclass(frozen=True)
class Settings:
    """All settings that determine the results in one `--out` folder."""

    dataset: str
    data: str | None
    limit: int | None
    size: int
    recipe: Recipe
    split: str = "test"

    @property
    def experiment(self) -> str:
        """Name of these settings in a table: data set, split, and a digest of the rest but the paths."""
        rest = {name: value for name, value in asdict(self).items() if name != "data"}
        digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
        return f"{self.dataset}/{self.split}/{digest[:8]}"


class Worker:
    """Computes cells. Built once per process, so that the data is read once."""

    def __init__(self, settings: Settings, out: str, cache: str) -> None:
        torch.set_num_threads(1)
        self._scores = Path(out) / "scores"
        self._out = Path(out)
        source = coreset_data.Source(settings.data, settings.limit, settings.size, Path(cache))
        # A trainer takes only the models that it made, which types cannot state.
        self._trainer: Any = make_trainer(
            coreset_data.load(settings.dataset, settings.split, source), settings.recipe
        )
        vectors = self._trainer.data.embeddings
        if vectors is not None and not (self._scores / "vectors.npy").exists():
            sink = io.BytesIO()
            np.save(sink, vectors)
            store.write_bytes(str(self._scores / "vectors.npy"), sink.getvalue())
        self._subgraphs: Subgraphs | None = None
        self._evidence: dict[int, coreset_methods.Evidence] = {}

    def __call__(self, cell: Cell) -> str:
        """Compute a cell, write its file and return its key."""
        start = time.perf_counter()
        if cell.method == FULL:
            kept = np.arange(len(self._trainer.data.train_labels))
            accuracy = self._train_on_all(cell.seed)
        else:
            kept = coreset_methods.choose(self._load_evidence(cell.seed), cell.method, cell.pruned, cell.seed)
            accuracy = self._train(kept, cell.seed)
        seconds = round(time.perf_counter() - start, 3)
        return keep(self._out, cell, {"kept": len(kept), "accuracy": accuracy, "seconds": seconds})

    def _train(self, kept: NDArray[np.int64], seed: int, log: TrainingLog | None = None) -> float:
        """Train on a coreset and return the accuracy; with a log, write it and the features too."""
        model = self._trainer.fit(kept, seed, log)
        if log is not None:
            if self._trainer.data.embeddings is None:
                sink = io.BytesIO()
                np.save(sink, self._trainer.features(model))
                store.write_bytes(str(self._scores / f"features-{seed}.npy"), sink.getvalue())
            log.save(str(self._scores / f"log-{seed}.npz"))
        return self._trainer.evaluate(model)

    def _train_on_all(self, seed: int) -> float:
        """Train on all samples, write log and features, and return the accuracy."""
        data = self._trainer.data
        return self._train(
            np.arange(len(data.train_labels)), seed, TrainingLog(len(data.train_labels), data.n_classes)
        )

    def _load_evidence(self, seed: int) -> coreset_methods.Evidence:
        if seed not in self._evidence:
            path = self._scores / f"log-{seed}.npz"
            if not path.exists():  # the table has the accuracy, from another folder
                self._train_on_all(seed)
            features = self._trainer.data.embeddings
            if features is None:
                features = np.load(self._scores / f"features-{seed}.npy")
                self._subgraphs = None
            elif self._subgraphs is None:
                self._subgraphs = Subgraphs(features, coreset_methods.N_NEIGHBORS)
            # Cells come seed by seed, and each seed holds several graphs.
            self._evidence = {
                seed: coreset_methods.Evidence(
                    TrainingLog.load(str(path)), features, self._trainer.data.train_labels, self._subgraphs
                )
            }
        return self._evidence[seed]


@functools.cache
def worker(settings: Settings, out: str, cache: str) -> Worker:
    """Return the worker of this process, which `compute` requests for every batch of cells."""
    return Worker(settings, out, cache)
