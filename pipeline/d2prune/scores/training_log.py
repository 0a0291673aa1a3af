"""Training logs: the logits of every sample after every epoch, collected in a training loop.

With `scores=...` a log keeps running sums in place of the logits (`running.py`). Stored as one `.npz`
file, without pickle, at any URL. Invariant: an epoch is complete, that is, every sample was recorded at
least once (the last record counts); otherwise `end_epoch` raises.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune import store
from d2prune.arguments import as_array
from d2prune.errors import ArgumentError, UserError
from d2prune.scores.probabilities import softmax
from d2prune.scores.running import RunningScores

_VERSION = 1


class TrainingLog:
    """Logits of N samples over E epochs, or running sums of the scores computed from them.

    Every score takes a log: `aum(log)`. ImageNet's logits over 10 epochs are 51 GB; the sums of one
    score are 21 MB.

    Example:
        >>> log = TrainingLog(n_samples=2, n_classes=3)
        >>> for epoch in range(2):                              # for indices, images, labels in loader:
        ...     logits = np.eye(3)[[0, 2]] * (epoch + 1)        #     logits = model(images)
        ...     log.record([0, 1], logits, labels=[0, 1])       #     log.record(indices, logits, labels)
        ...     log.end_epoch()
        >>> log.logits.shape
        (2, 2, 3)
        >>> streamed = TrainingLog(n_samples=2, n_classes=3, scores=["aum", "el2n"])    # no logits are kept
    """

    def __init__(self, n_samples: int, n_classes: int, scores: Sequence[str] | None = None) -> None:
        """Create an empty log.

        Args:
            n_samples: N; samples are numbered 0 to N - 1, like the indices of the dataset.
            n_classes: C.
            scores: keep running sums of these scores and no logits: some of aum, el2n, entropy,
                forgetting and margin. Default: keep the logits of every epoch, for any score.

        Raises:
            ArgumentError: a number below 1, or an unknown score.
        """
        if n_samples < 1 or n_classes < 1:
            raise ArgumentError(
                f"TrainingLog: got {n_samples} samples and {n_classes} classes, expected at least 1 of each"
            )
        self._n_classes, self._n_epochs = n_classes, 0
        self._running = None if scores is None else RunningScores(n_samples, scores)
        self._epochs: list[NDArray[np.float32]] = []
        self._labels = np.full(n_samples, -1, np.int64)
        self._current = np.zeros((0 if self._running else n_samples, n_classes), np.float32)
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
        n, c = len(self._labels), self._n_classes
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
        if not np.isfinite(logit_BC).all():
            i = int(index_B[np.argmin(np.isfinite(logit_BC).all(axis=1))])
            raise ArgumentError(
                f"TrainingLog: sample {i} has logits that are not finite; expected finite ones"
            )
        self._labels[index_B], self._seen[index_B] = label_B, True
        if self._running:
            self._running.record(index_B, logit_BC, label_B)
        else:
            self._current[index_B] = logit_BC

    def end_epoch(self) -> None:
        """End the current epoch.

        Raises:
            ArgumentError: a sample was not recorded in this epoch, for example because the data loader
                uses drop_last.
        """
        missing = np.flatnonzero(~self._seen)
        if len(missing):
            raise ArgumentError(
                f"TrainingLog: epoch {self._n_epochs} has no logits of {len(missing)} samples, the first "
                f"is sample {missing[0]}; record every sample before end_epoch()"
            )
        if self._running:
            self._running.end_epoch()
        else:
            self._epochs.append(self._current.copy())
        self._n_epochs += 1
        self._seen[:] = False

    @property
    def n_epochs(self) -> int:
        """Number of complete epochs."""
        return self._n_epochs

    @property
    def scores(self) -> tuple[str, ...]:
        """The scores whose running sums the log keeps; empty if it keeps logits."""
        return self._running.names if self._running else ()

    def score(self, name: str) -> NDArray[np.float32]:
        """Return a score of a log that keeps running sums, float32 [N], as its function does.

        Raises:
            ArgumentError: no epoch is complete, or the log does not keep this score.
        """
        if self._running is None:
            raise ArgumentError(f"{name}: found a log that keeps logits; expected d2prune.scores.{name}(log)")
        self._check_complete()
        return self._running.compute(name, self._n_epochs)

    def _check_complete(self) -> None:
        if not self._n_epochs:
            raise ArgumentError("TrainingLog: no epoch is complete; call end_epoch() after each")

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels, int64 [N]; -1 where none was recorded yet."""
        return self._labels.copy()

    @property
    def logits(self) -> NDArray[np.float32]:
        """Logits of all complete epochs, float32 [N, E, C].

        Raises:
            ArgumentError: no epoch is complete, or the log keeps running sums.
        """
        self._check_complete()
        if self._running:
            raise ArgumentError(
                f"TrainingLog: found a log that keeps {', '.join(self.scores)} only; expected one that keeps "
                "logits, without `scores`"
            )
        return np.stack(self._epochs, axis=1)

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Softmax of `logits`, float32 [N, E, C]; raises what `logits` does."""
        return softmax(self.logits)

    def save(self, url: str) -> None:
        """Write the complete epochs to a file, atomically; raises what `logits` does."""
        sink = io.BytesIO()
        self._check_complete()
        if self._running:
            shape = np.array([self._n_epochs, self._n_classes])
            arrays: dict[str, Any] = {"epochs_classes": shape, **self._running.dump()}
        else:
            arrays = {"logits": self.logits}
        np.savez_compressed(sink, version=np.array(_VERSION), labels=self._labels, **arrays)
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
                version, label_N = int(stored["version"]), stored["labels"]
                if "epochs_classes" in stored:
                    return cls._restore(version, label_N, dict(stored))
                logit_NEC = stored["logits"]
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
        log._n_epochs = len(log._epochs)
        return log

    @classmethod
    def _restore(cls, version: int, label_N: NDArray[Any], arrays: dict[str, NDArray[Any]]) -> TrainingLog:
        """Return a log of running sums; raises what wrong arrays cause."""
        n_epochs, n_classes = map(int, arrays["epochs_classes"])
        sums = {name: values for name, values in arrays.items() if "." in name}
        if version != _VERSION or label_N.ndim != 1 or n_epochs < 1:
            raise ValueError(f"found version {version}, labels {label_N.shape} and {n_epochs} epochs")
        running = RunningScores.load(len(label_N), sums)
        log = cls(len(label_N), n_classes, running.names)
        log._labels[:], log._n_epochs, log._running = label_N, n_epochs, running
        return log
