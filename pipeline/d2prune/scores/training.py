"""Difficulty from training logs: a model's outputs for each sample after each epoch.

A `TrainingLog` or arrays in, float32 [N] out. Arrays are [N, E, C]: N samples, E epochs, C classes.
Every score is higher for harder samples, which are more wanted, so it can be passed to
`d2_prune(difficulty=...)`. A hard sample may be mislabelled: see `aum` for dropping those.

Invariant: a score is computed in float64 in a fixed order and rounded once, so it depends on the
sample's own log alone, bit for bit.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2prune.arguments import as_array
from d2prune.errors import ArgumentError
from d2prune.scores import training_kernels
from d2prune.scores.training_log import TrainingLog

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

_SUM_TOLERANCE = 1e-2  # bfloat16 and float16 probabilities


def el2n(probabilities: ArrayLike | TrainingLog, labels: ArrayLike | None = None) -> Float32:
    """Compute the error L2 norm: the mean over epochs of ||p - onehot(label)||.

    Higher = harder = more wanted, as in the paper.

    Source: Paul, Ganguli, Dziugaite, "Deep Learning on a Data Diet", NeurIPS 2021, arXiv 2107.07075,
    definition 2.3. They use epochs early in training and average several runs: concatenate the runs
    along E.

    Args:
        probabilities: a TrainingLog, or floats [N, E, C]; rows sum to 1.
        labels: integers [N], 0 <= label < C; those of the log if it is one.

    Returns:
        float32 [N], 0 to sqrt(2).

    Raises:
        ArgumentError: an array has the wrong shape or dtype, or a row does not hold probabilities.
    """
    if _is_running(probabilities):
        return probabilities.score("el2n")
    values, labels = _open_log(probabilities, labels)
    p_NEC = _check_probabilities(values)
    total_N = np.zeros(len(p_NEC))
    training_kernels.el2n(p_NEC, _check_labels(labels, p_NEC), np.ones(p_NEC.shape[:2]), total_N)
    return _to_float32(total_N / p_NEC.shape[1])


def grand(
    probabilities: ArrayLike | TrainingLog,
    labels: ArrayLike | None = None,
    features: ArrayLike | None = None,
) -> Float32:
    """Compute the gradient norm of the last layer.

    The mean over epochs of ||p - onehot(label)|| * ||h||. Higher = harder = more wanted, as in the
    paper.

    Source: GraNd, Paul, Ganguli, Dziugaite, NeurIPS 2021, arXiv 2107.07075, definition 2.1, which is
    the norm of the loss gradient over all weights. Over the weights of the last linear layer alone,
    the gradient is the outer product of p - onehot(label) and the layer's input h, so its norm is the
    product of their norms.

    Args:
        probabilities: a TrainingLog, or floats [N, E, C]; rows sum to 1.
        labels: integers [N], 0 <= label < C; those of the log if it is one.
        features: floats [N, E, D], the input of the last layer at each epoch.

    Returns:
        float32 [N], >= 0.

    Raises:
        ArgumentError: as for `el2n`, or features has another N or E.
    """
    if _is_running(probabilities):
        return probabilities.score("grand")
    values, labels = _open_log(probabilities, labels)
    p_NEC = _check_probabilities(values)
    if features is None:
        raise ArgumentError("features: found None; expected floats [N, E, D]")
    h_NED = _check_log(features, "features")
    if h_NED.shape[:2] != p_NEC.shape[:2]:
        raise ArgumentError(f"features are {h_NED.shape}, expected [N, E, D] with [N, E] = {p_NEC.shape[:2]}")
    total_N = np.zeros(len(p_NEC))
    training_kernels.el2n(p_NEC, _check_labels(labels, p_NEC), training_kernels.norms(h_NED), total_N)
    return _to_float32(total_N / p_NEC.shape[1])


def forgetting(probabilities: ArrayLike | TrainingLog, labels: ArrayLike | None = None) -> Float32:
    """Count forgetting events: the sample was correct after one epoch and wrong after the next.

    Higher = harder = more wanted, as in the paper.

    Source: Toneva et al., "An Empirical Study of Example Forgetting during Deep Neural Network
    Learning", ICLR 2019, arXiv 1812.05159. A sample that was never classified correctly has no such
    event; the authors count it as infinity, this function as E, which is more than any count.

    Args:
        probabilities: a TrainingLog, or floats [N, E, C], probabilities or logits. The predicted class
            is the highest, ties to the lower number.
        labels: integers [N], 0 <= label < C; those of the log if it is one.

    Returns:
        float32 [N], whole numbers from 0 to E.

    Raises:
        ArgumentError: an array has the wrong shape or dtype.
    """
    if _is_running(probabilities):
        return probabilities.score("forgetting")
    values, labels = _open_log(probabilities, labels, as_logits=True)
    z_NEC = _check_log(values, "probabilities")
    right_NE = z_NEC.argmax(axis=2) == _check_labels(labels, z_NEC)[:, None]
    events_N = (right_NE[:, :-1] & ~right_NE[:, 1:]).sum(axis=1)
    return _to_float32(np.where(right_NE.any(axis=1), events_N, z_NEC.shape[1]))


def aum(logits: ArrayLike | TrainingLog, labels: ArrayLike | None = None) -> Float32:
    """Compute minus the area under the margin (AUM).

    AUM is the mean over epochs of (label's logit - highest other logit). Higher = harder = more
    wanted: the opposite sign of the paper, whose AUM is high for easy samples and very negative for
    mislabelled ones. To drop likely mislabelled samples, as D2 does by its cut-off beta, restore the
    sign: `d2_prune(..., drop_score=-aum(log), drop_fraction=0.1)`.

    Source: Pleiss et al., "Identifying Mislabeled Data using the Area Under the Margin Ranking",
    NeurIPS 2020, arXiv 2001.10528.

    Args:
        logits: a TrainingLog, or floats [N, E, C], C >= 2.
        labels: integers [N], 0 <= label < C; those of the log if it is one.

    Returns:
        float32 [N]; negative if the label's logit is the highest, on average over epochs.

    Raises:
        ArgumentError: an array has the wrong shape or dtype, or there are fewer than 2 classes.
    """
    if _is_running(logits):
        return logits.score("aum")
    values, labels = _open_log(logits, labels, as_logits=True)
    z_NEC = _check_classes(_check_log(values, "logits"), "aum")
    total_N = np.zeros(len(z_NEC))
    training_kernels.aum(z_NEC, _check_labels(labels, z_NEC), total_N)
    return _to_float32(total_N / z_NEC.shape[1])


def entropy(probabilities: ArrayLike | TrainingLog) -> Float32:
    """Compute the mean over epochs of the entropy of p, in nats.

    Higher = more uncertain = harder = more wanted, as in the paper. Labels are not used.

    Source: Coleman et al., "Selection via Proxy", ICLR 2020, arXiv 1906.11829. They use the last
    epoch alone: pass only that one.

    Args:
        probabilities: a TrainingLog, or floats [N, E, C]; rows sum to 1.

    Returns:
        float32 [N], 0 to ln C.

    Raises:
        ArgumentError: the array has the wrong shape or dtype, or a row does not hold probabilities.
    """
    if _is_running(probabilities):
        return probabilities.score("entropy")
    p_NEC = _check_probabilities(_open_log(probabilities)[0])
    total_N = np.zeros(len(p_NEC))
    training_kernels.entropy(p_NEC, total_N)
    return _to_float32(total_N / p_NEC.shape[1])


def margin(probabilities: ArrayLike | TrainingLog) -> Float32:
    """Compute 1 minus the mean over epochs of (highest - second highest probability).

    Higher = more uncertain = harder = more wanted: 1 minus the margin, which is small for uncertain
    samples. Labels are not used.

    Source: margin sampling, Scheffer et al., 2001; Coleman et al., ICLR 2020, arXiv 1906.11829.

    Args:
        probabilities: a TrainingLog, or floats [N, E, C], C >= 2; rows sum to 1.

    Returns:
        float32 [N], 0 to 1.

    Raises:
        ArgumentError: the array has the wrong shape or dtype, a row does not hold probabilities, or there
            are fewer than 2 classes.
    """
    if _is_running(probabilities):
        return probabilities.score("margin")
    p_NEC = _check_classes(_check_probabilities(_open_log(probabilities)[0]), "margin")
    total_N = np.zeros(len(p_NEC))
    training_kernels.margin(p_NEC, total_N)
    return _to_float32(1.0 - total_N / p_NEC.shape[1])


def variance_of_gradients(probabilities: ArrayLike | TrainingLog) -> Float32:
    """Compute how much the gradient at the logits varies over epochs.

    The mean over classes of the gradient's standard deviation over epochs. Higher = harder = more
    wanted, as in the paper. Labels are not used: the gradient of the cross-entropy at the logits is
    p - onehot(label), whose deviation is that of p. A single epoch gives 0.

    Source: a simplified variance of gradients (VoG), Agarwal, D'souza, Hooker, CVPR 2022, arXiv
    2008.11600, who differentiate with respect to the pixels and average over those.

    Args:
        probabilities: a TrainingLog, or floats [N, E, C]; rows sum to 1.

    Returns:
        float32 [N], >= 0.

    Raises:
        ArgumentError: the array has the wrong shape or dtype, or a row does not hold probabilities.
    """
    if _is_running(probabilities):
        return probabilities.score("variance_of_gradients")
    return _to_float32(training_kernels.deviation(_check_probabilities(_open_log(probabilities)[0])))


def _is_running(values: ArrayLike | TrainingLog) -> TypeGuard[TrainingLog]:
    """Whether this is a log that keeps running sums in place of logits."""
    return isinstance(values, TrainingLog) and bool(values.scores)


def _open_log(
    values: ArrayLike | TrainingLog, labels: ArrayLike | None = None, as_logits: bool = False
) -> tuple[ArrayLike, ArrayLike | None]:
    """Return the values and labels of a log; arrays unchanged."""
    if not isinstance(values, TrainingLog):
        return values, labels
    if labels is not None:
        raise ArgumentError("labels: found labels beside a TrainingLog, which has its own; expected None")
    return values.logits if as_logits else values.probabilities, values.labels


def _to_float32(values: NDArray[Any]) -> Float32:
    """Round to float32."""
    return np.asarray(values, np.float32)


def _check_log(values: ArrayLike, name: str) -> NDArray[Any]:
    """Return a log [N, E, C] as float32 or float64, after checking it."""
    log_NEC = as_array(values, name)
    if log_NEC.ndim != 3 or log_NEC.dtype.kind != "f" or not all(log_NEC.shape):
        raise ArgumentError(
            f"{name}: got {log_NEC.dtype} {log_NEC.shape}, expected floats [N, E, C], each at least 1"
        )
    if log_NEC.dtype != np.float64:
        log_NEC = log_NEC.astype(np.float32, copy=False)
    bad = ~np.isfinite(log_NEC).all(axis=(1, 2))
    if bad.any():
        raise ArgumentError(
            f"{name}: sample {int(bad.argmax())} has a value that is not finite, expected finite numbers"
        )
    return np.ascontiguousarray(log_NEC)


def _check_probabilities(values: ArrayLike) -> NDArray[Any]:
    """Return probabilities [N, E, C] after checking them."""
    p_NEC = _check_log(values, "probabilities")
    # In blocks of samples: temporary arrays as large as the log would triple the memory.
    for start in range(0, len(p_NEC), 4096):
        block = p_NEC[start : start + 4096]
        bad = (abs(block.sum(axis=2) - 1) > _SUM_TOLERANCE).any(axis=1) | (block < 0).any(axis=(1, 2))
        if bad.any():
            raise ArgumentError(
                f"probabilities: sample {start + int(bad.argmax())} has a negative value or a sum other "
                "than 1; convert logits with softmax(logits)"
            )
    return p_NEC


def _check_labels(values: ArrayLike | None, log_NEC: NDArray[Any]) -> Int64:
    """Return labels as int64 [N] after checking them."""
    labels_N = as_array(values, "labels")
    n, _, c = log_NEC.shape
    if labels_N.shape != (n,) or labels_N.dtype.kind not in "iu":
        raise ArgumentError(
            f"labels: got {labels_N.dtype} {labels_N.shape}, expected integers ({n},), one per sample"
        )
    bad = (labels_N < 0) | (labels_N >= c)
    if bad.any():
        i = int(bad.argmax())
        raise ArgumentError(f"labels[{i}] is {labels_N[i]}, expected 0 to {c - 1}")
    return labels_N.astype(np.int64)


def _check_classes(log_NEC: NDArray[Any], name: str) -> NDArray[Any]:
    """Return the log after checking that it has at least two classes."""
    if log_NEC.shape[2] < 2:
        raise ArgumentError(f"{name}: got 1 class, expected at least 2")
    return log_NEC
