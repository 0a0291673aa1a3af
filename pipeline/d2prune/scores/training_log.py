"""Training logs: the logits of every sample after every epoch, collected in a training loop.

Stored as one `.npz` file, without pickle, at any URL. Invariant: an epoch is complete, that is, every
sample was recorded at least once (the last record counts); otherwise `end_epoch` raises.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune import store
from d2prune.arguments import as_array
from d2prune.errors import ArgumentError, UserError
from d2prune.scores.training import softmax

_VERSION = 1


class TrainingLog:
    """Logits of N samples over E epochs.

    Example:
        >>> log = TrainingLog(n_samples=2, n_classes=3)
        >>> for epoch in range(2):                              # for indices, images, labels in loader:
        ...     logits = np.eye(3)[[0, 2]] * (epoch + 1)        #     logits = model(images)
        ...     log.record([0, 1], logits, labels=[0, 1])       #     log.record(indices, logits, labels)
        ...     log.end_epoch()
        >>> log.logits.shape
        (2, 2, 3)
    """

    def __init__(self, n_samples: int, n_classes: int) -> None:
        """Create an empty log.

        Args:
            n_samples: N; samples are numbered 0 to N - 1, like the indices of the dataset.
            n_classes: C.

        Raises:
            ArgumentError: a number below 1.
        """
        if n_samples < 1 or n_classes < 1:
            raise ArgumentError(
                f"TrainingLog: got {n_samples} samples and {n_classes} classes, expected at least 1 of each"
            )
        self._epochs: list[NDArray[np.float32]] = []
        self._labels = np.full(n_samples, -1, np.int64)
        self._current = np.zeros((n_samples, n_classes), np.float32)
        self._seen = np.zeros(n_samples, bool)

    def record(self, indices: Any, logits: Any, labels: Any) -> None:
        """Record one batch of the current epoch: torch tensors on any device, or arrays.

        Args:
            indices: integers [B], numbers of the samples.
            logits: floats [B, C].
            labels: integers [B], 0 <= label < C, the same at every epoch.

        Raises:
            ArgumentError: the shapes do not match, or a number or label is out of range or changed.
        """
        index_B, label_B = (
            as_array(indices, "indices").astype(np.int64),
            as_array(labels, "labels").astype(np.int64),
        )
        logit_BC = as_array(logits, "logits").astype(np.float32)
        n, c = self._current.shape
        if logit_BC.shape != (len(index_B), c) or label_B.shape != index_B.shape:
            raise ArgumentError(
                f"TrainingLog: got indices {index_B.shape}, logits {logit_BC.shape} and labels "
                f"{label_B.shape}, expected [B], [B, {c}] and [B]"
            )
        if len(index_B) and not 0 <= index_B.min() <= index_B.max() < n:
            raise ArgumentError(
                f"TrainingLog: got samples {index_B.min()} to {index_B.max()}, expected 0 to {n - 1}"
            )
        recorded_B = self._labels[index_B]
        changed = (recorded_B >= 0) & (recorded_B != label_B)
        if changed.any() or (len(label_B) and not 0 <= label_B.min() <= label_B.max() < c):
            raise ArgumentError(
                f"TrainingLog: got labels {label_B.tolist()}, expected 0 to {c - 1}, the same at every epoch"
            )
        self._labels[index_B], self._current[index_B], self._seen[index_B] = label_B, logit_BC, True

    def end_epoch(self) -> None:
        """End the current epoch.

        Raises:
            ArgumentError: a sample was not recorded in this epoch, for example because the data loader
                uses drop_last.
        """
        missing = np.flatnonzero(~self._seen)
        if len(missing):
            raise ArgumentError(
                f"TrainingLog: epoch {len(self._epochs)} has no logits of {len(missing)} samples, the first "
                f"is sample {missing[0]}; record every sample before end_epoch()"
            )
        self._epochs.append(self._current.copy())
        self._seen[:] = False

    @property
    def n_epochs(self) -> int:
        """Number of complete epochs."""
        return len(self._epochs)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels, int64 [N]; -1 where none was recorded yet."""
        return self._labels.copy()

    @property
    def logits(self) -> NDArray[np.float32]:
        """Logits of all complete epochs, float32 [N, E, C].

        Raises:
            ArgumentError: no epoch is complete.
        """
        if not self._epochs:
            raise ArgumentError("TrainingLog: no epoch is complete; call end_epoch() after each")
        return np.stack(self._epochs, axis=1)

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Softmax of `logits`, float32 [N, E, C]; raises what `logits` does."""
        return softmax(self.logits)

    def save(self, url: str) -> None:
        """Write the complete epochs to a file, atomically; raises what `logits` does."""
        sink = io.BytesIO()
        np.savez_compressed(sink, version=_VERSION, logits=self.logits, labels=self._labels)
        store.write_bytes(str(url), sink.getvalue())

    @classmethod
    def load(cls, url: str) -> TrainingLog:
        """Read a file written by `save`; more epochs can be recorded.

        Raises:
            UserError: the file is not a training log.
        """
        try:
            data = io.BytesIO(store.read_bytes(str(url)))
        except FileNotFoundError as error:
            raise UserError(f"{url}: not a training log: not found") from error
        try:
            with np.load(data, allow_pickle=False) as stored:
                version, logit_NEC, label_N = int(stored["version"]), stored["logits"], stored["labels"]
        except Exception as error:
            # On damaged bytes, numpy and zipfile raise exceptions of many types.
            found = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{url}: not a training log: {found}") from error
        if version != _VERSION or logit_NEC.ndim != 3 or label_N.shape != logit_NEC.shape[:1]:
            raise UserError(
                f"{url}: found training log version {version}, logits {logit_NEC.shape} and labels "
                f"{label_N.shape}; expected version {_VERSION}, [N, E, C] and [N]"
            )
        log = cls(logit_NEC.shape[0], logit_NEC.shape[2])
        log._labels[:] = label_N
        log._epochs = list(np.moveaxis(logit_NEC.astype(np.float32), 1, 0))
        return log
