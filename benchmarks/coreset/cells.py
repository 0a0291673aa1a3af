"""The worker that computes the cells of the coreset benchmark; see `benchmarks.coreset`.

Reads the data set. Writes one file per cell below `cells/`, and below `scores/`, for each seed, the
log and the features of the model trained on all samples. Invariant: the file of a cell is written
last and atomically.
"""

from __future__ import annotations

import functools
import io
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.cells import Cell, keep
from benchmarks.coreset import data as coreset_data
from benchmarks.coreset import methods as coreset_methods
from benchmarks.coreset.training import Recipe, Trainer
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


class Worker:
    """Computes cells. Built once per process, so that the data is read once."""

    def __init__(self, settings: Settings, out: str) -> None:
        torch.set_num_threads(1)
        self._out = Path(out)
        data = coreset_data.DATASETS[settings.dataset](
            settings.data, settings.limit, settings.size, self._out / "scores"
        )
        self._trainer = Trainer(data, settings.recipe)
        self._evidence: dict[int, coreset_methods.Evidence] = {}

    def __call__(self, cell: Cell) -> str:
        """Compute a cell, write its file and return its key."""
        start = time.perf_counter()
        if cell.method == FULL:
            kept = np.arange(len(self._trainer.data.train_labels))
            accuracy = self._train_on_all(cell.seed)
        else:
            evidence = self._load_evidence(cell.seed)
            kept = coreset_methods.choose(evidence, cell.method, cell.pruned, cell.seed)
            accuracy = self._trainer.evaluate(self._trainer.fit(kept, cell.seed))
        seconds = round(time.perf_counter() - start, 3)
        return keep(self._out, cell, {"kept": len(kept), "accuracy": accuracy, "seconds": seconds})

    def _train_on_all(self, seed: int) -> float:
        """Train on all samples, write log and features, and return the accuracy."""
        data = self._trainer.data
        log = TrainingLog(len(data.train_labels), data.n_classes)
        model = self._trainer.fit(np.arange(len(data.train_labels)), seed, log)
        sink = io.BytesIO()
        np.save(sink, self._trainer.features(model))
        store.write_bytes(str(self._out / "scores" / f"features-{seed}.npy"), sink.getvalue())
        log.save(str(self._out / "scores" / f"log-{seed}.npz"))
        return self._trainer.evaluate(model)

    def _load_evidence(self, seed: int) -> coreset_methods.Evidence:
        if seed not in self._evidence:
            data = self._trainer.data
            log = TrainingLog.load(str(self._out / "scores" / f"log-{seed}.npz"))
            features = data.embeddings
            if features is None:
                features = np.load(self._out / "scores" / f"features-{seed}.npy")
            self._evidence[seed] = coreset_methods.Evidence(log, features, data.train_labels)
        return self._evidence[seed]


@functools.cache
def worker(settings: Settings, out: str) -> Worker:
    """Return the worker of this process, which `compute` requests for every batch of cells."""
    return Worker(settings, out)
