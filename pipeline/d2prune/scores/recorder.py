"""What a model said of every sample after every epoch, collected in a training loop and kept in one `.npz`.

Writes and reads `.npz` without pickle at any URL. Invariant: an epoch is whole (every sample, once
or more; the last counts), or `end_epoch` says which sample is missing.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import UserError
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
        """An empty log; samples are numbered from 0 to n_samples - 1, as the dataset's index does."""
        if n_samples < 1 or n_classes < 1:
            raise UserError(
                f"TrainingLog: got {n_samples} samples and {n_classes} classes, expected at least 1 of each"
            )
        self._epochs: list[NDArray[np.float32]] = []
        self._labels = np.full(n_samples, -1, np.int64)
        self._current = np.zeros((n_samples, n_classes), np.float32)
        self._seen = np.zeros(n_samples, bool)

    def record(self, indices: Any, logits: Any, labels: Any) -> None:
        """Take one batch, torch tensors on any device or arrays.

        Args:
            indices: int [B], the samples' numbers.
            logits: floats [B, C].
            labels: int [B], 0 <= label < C; the same at every epoch.

        Raises:
            UserError: shapes that do not fit, an unknown number, a label that changed.
        """
        index_B, label_B = _array(indices).astype(np.int64), _array(labels).astype(np.int64)
        logit_BC = _array(logits).astype(np.float32)
        n, c = self._current.shape
        if logit_BC.shape != (len(index_B), c) or label_B.shape != index_B.shape:
            raise UserError(
                f"TrainingLog: got {index_B.shape} indices, {logit_BC.shape} logits and {label_B.shape} labels, "
                f"expected [B], [B, {c}] and [B]"
            )
        if len(index_B) and not 0 <= index_B.min() <= index_B.max() < n:
            raise UserError(
                f"TrainingLog: got sample {index_B.min()} to {index_B.max()}, expected 0 to {n - 1}"
            )
        known_B = self._labels[index_B]
        changed = (known_B >= 0) & (known_B != label_B)
        if changed.any() or (len(label_B) and not 0 <= label_B.min() <= label_B.max() < c):
            raise UserError(
                f"TrainingLog: expected labels from 0 to {c - 1} that do not change; got {label_B.tolist()}"
            )
        self._labels[index_B], self._current[index_B], self._seen[index_B] = label_B, logit_BC, True

    def end_epoch(self) -> None:
        """Close the epoch.

        Raises:
            UserError: a sample was not recorded since the last one (drop_last of a loader, say).
        """
        missing = np.flatnonzero(~self._seen)
        if len(missing):
            raise UserError(
                f"TrainingLog: epoch {len(self._epochs)} misses {len(missing)} samples, sample {missing[0]} first"
            )
        self._epochs.append(self._current.copy())
        self._seen[:] = False

    @property
    def n_epochs(self) -> int:
        """Epochs closed so far."""
        return len(self._epochs)

    @property
    def labels(self) -> NDArray[np.int64]:
        """int64 [N]; -1 where no label was recorded yet."""
        return self._labels.copy()

    @property
    def logits(self) -> NDArray[np.float32]:
        """float32 [N, E, C].

        Raises:
            UserError: no epoch was closed.
        """
        if not self._epochs:
            raise UserError("TrainingLog: no epoch has ended yet; call end_epoch() after each")
        return np.stack(self._epochs, axis=1)

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """float32 [N, E, C]; raises what `logits` does."""
        return softmax(self.logits)

    def save(self, url: str) -> None:
        """Write the closed epochs, atomically."""
        sink = io.BytesIO()
        np.savez_compressed(sink, version=_VERSION, logits=self.logits, labels=self._labels)
        store.write_bytes(str(url), sink.getvalue())

    @classmethod
    def load(cls, url: str) -> TrainingLog:
        """Read what `save` wrote; more epochs may follow.

        Raises:
            UserError: not such a file.
        """
        try:
            with np.load(io.BytesIO(store.read_bytes(str(url))), allow_pickle=False) as stored:
                version, logit_NEC, label_N = int(stored["version"]), stored["logits"], stored["labels"]
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise UserError(f"{url}: not a training log: {error}") from error
        if version != _VERSION or logit_NEC.ndim != 3 or label_N.shape != logit_NEC.shape[:1]:
            raise UserError(f"{url}: a training log of version {version}, expected {_VERSION}")
        log = cls(logit_NEC.shape[0], logit_NEC.shape[2])
        log._labels[:] = label_N
        log._epochs = list(np.moveaxis(logit_NEC.astype(np.float32), 1, 0))
        return log


def _array(values: Any) -> NDArray[Any]:
    """A torch tensor or anything array-like; bfloat16 has no numpy type, so tensors pass through float32."""
    if hasattr(values, "detach"):
        values = values.detach()
        values = (values.float() if values.is_floating_point() else values).cpu().numpy()
    return np.asarray(values)
