"""Difficulty from logs of training: what a model said of each sample after each epoch. Arrays in, float32 [N] out.

Logs are [N, E, C]: N samples, E epochs, C classes; `TrainingLog` collects them. Invariant: a score
is computed in float64 in a fixed order and rounded once, so it depends on the sample's own log
alone. Every score here is high for samples that are hard, which are the wanted ones, so each feeds
`d2_prune(difficulty=...)` as it is (add an offset where it is negative). Hard may mean mislabelled:
see `aum` for the cut-off.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2prune.errors import UserError
from d2prune.scores import kernels

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

_SUM_TOLERANCE = 1e-2  # bfloat16 and float16 probabilities


def softmax(logits: ArrayLike) -> Float32:
    """Probabilities of logits, over the last axis.

    Args:
        logits: [..., C] finite numbers.

    Returns:
        float32, same shape; computed in float64.
    """
    z = np.asarray(logits, np.float64)
    exp = np.exp(z - z.max(axis=-1, keepdims=True))
    return _float32(exp / exp.sum(axis=-1, keepdims=True))


def el2n(probabilities: ArrayLike, labels: ArrayLike) -> Float32:
    """Error L2 norm: mean over epochs of ||p - onehot(label)||. High = hard = wanted; as its authors define it.

    Paul, Ganguli, Dziugaite, "Deep Learning on a Data Diet", NeurIPS 2021, arXiv 2107.07075,
    definition 2.3. They take epochs early in training, and the mean over several runs: join the runs along E.

    Args:
        probabilities: [N, E, C], rows sum to 1.
        labels: int [N], 0 <= label < C.

    Returns:
        float32 [N], 0 to sqrt(2).

    Raises:
        UserError: arrays that do not fit, or rows that are no probabilities.
    """
    p_NEC = _probabilities(probabilities)
    return _float32(kernels.el2n(p_NEC, _labels(labels, p_NEC), np.ones(p_NEC.shape[:2])))


def grand(probabilities: ArrayLike, labels: ArrayLike, features: ArrayLike) -> Float32:
    """Gradient norm, in its last-layer form: mean over epochs of ||p - onehot(label)|| * ||h||. High = hard = wanted.

    GraNd of Paul et al. (arXiv 2107.07075, definition 2.1) is the norm of the loss gradient over
    all weights. Over the weights of the last linear layer alone the gradient is the outer product
    of p - y and the layer's input h, and its norm the product of both norms.

    Args:
        probabilities: [N, E, C].
        labels: int [N].
        features: [N, E, D], input of the last layer at each epoch.

    Returns:
        float32 [N], >= 0.

    Raises:
        UserError: as `el2n`; features of another N or E.
    """
    p_NEC = _probabilities(probabilities)
    h_NED = _log(features, "features")
    if h_NED.shape[:2] != p_NEC.shape[:2]:
        raise UserError(f"features are {h_NED.shape}, expected [N, E, D] with [N, E] = {p_NEC.shape[:2]}")
    return _float32(kernels.el2n(p_NEC, _labels(labels, p_NEC), kernels.norms(h_NED)))


def forgetting(probabilities: ArrayLike, labels: ArrayLike) -> Float32:
    """Forgetting events: how often a sample was right after one epoch and wrong after the next. High = hard = wanted.

    Toneva et al., "An Empirical Study of Example Forgetting", ICLR 2019, arXiv 1812.05159. A sample
    that was never right has no event to count; its authors call that infinitely many, here it is E,
    more than any count.

    Args:
        probabilities: [N, E, C]; logits do as well. Of equal classes the lowest number is the prediction.
        labels: int [N].

    Returns:
        float32 [N], integers 0 to E.

    Raises:
        UserError: arrays that do not fit.
    """
    z_NEC = _log(probabilities, "probabilities")
    right_NE = z_NEC.argmax(axis=2) == _labels(labels, z_NEC)[:, None]
    events_N = (right_NE[:, :-1] & ~right_NE[:, 1:]).sum(axis=1)
    return _float32(np.where(right_NE.any(axis=1), events_N, z_NEC.shape[1]))


def aum(logits: ArrayLike, labels: ArrayLike) -> Float32:
    """Minus the area under the margin: mean over epochs of (best other logit - label's logit). High = hard = wanted.

    Pleiss et al., "Identifying Mislabeled Data using the Area Under the Margin Ranking", NeurIPS 2020, arXiv
    2001.10528. Their AUM is high for easy and very negative for mislabelled samples; it is turned
    here, by its sign. For D2's cut-off beta, which drops the likely mislabelled, turn it back:
    `drop_score=-aum(logits, labels)`.

    Args:
        logits: [N, E, C], C >= 2.
        labels: int [N].

    Returns:
        float32 [N], negative for samples that the model gets right.

    Raises:
        UserError: arrays that do not fit, or fewer than 2 classes.
    """
    z_NEC = _two_classes(_log(logits, "logits"), "aum")
    return _float32(kernels.aum(z_NEC, _labels(labels, z_NEC)))


def entropy(probabilities: ArrayLike) -> Float32:
    """Mean over epochs of the entropy of p, in nats. High = uncertain = hard = wanted; as it is commonly defined.

    Coleman et al., "Selection via Proxy", ICLR 2020, arXiv 1906.11829 (they take the last epoch:
    pass that one).

    Args:
        probabilities: [N, E, C].

    Returns:
        float32 [N], 0 to ln C.

    Raises:
        UserError: rows that are no probabilities.
    """
    return _float32(kernels.entropy(_probabilities(probabilities)))


def margin(probabilities: ArrayLike) -> Float32:
    """One minus the mean over epochs of (highest - second highest probability). High = hard = wanted.

    Margin sampling (Scheffer et al., 2001; Coleman et al., arXiv 1906.11829): a small gap means
    uncertain; it is turned here by taking it from 1. Labels play no part.

    Args:
        probabilities: [N, E, C], C >= 2.

    Returns:
        float32 [N], 0 to 1.

    Raises:
        UserError: rows that are no probabilities, or fewer than 2 classes.
    """
    return _float32(kernels.margin(_two_classes(_probabilities(probabilities), "margin")))


def variance_of_gradients(probabilities: ArrayLike) -> Float32:
    """Mean over classes of the deviation over epochs of the gradient at the logits. High = hard = wanted.

    A simple form of VoG (Agarwal, D'souza, Hooker, CVPR 2022, arXiv 2008.11600), which
    differentiates by the pixels and averages over these. The gradient of the cross-entropy at the
    logits is p - onehot(label); the label is constant, so the deviation is that of p. One epoch gives 0.

    Args:
        probabilities: [N, E, C].

    Returns:
        float32 [N], >= 0.

    Raises:
        UserError: rows that are no probabilities.
    """
    return _float32(kernels.deviation(_probabilities(probabilities)))


def _float32(values: NDArray[Any]) -> Float32:
    """Rounded once."""
    return np.asarray(values, np.float32)


def _log(values: ArrayLike, name: str) -> NDArray[Any]:
    log_NEC = np.asarray(values)
    if log_NEC.ndim != 3 or log_NEC.dtype.kind != "f" or not all(log_NEC.shape):
        raise UserError(
            f"{name}: got {log_NEC.dtype} {log_NEC.shape}, expected floats [N, E, C], none of them 0"
        )
    if log_NEC.dtype != np.float64:
        log_NEC = log_NEC.astype(np.float32, copy=False)
    bad = ~np.isfinite(log_NEC).all(axis=(1, 2))
    if bad.any():
        raise UserError(f"{name}: sample {int(bad.argmax())} has a value that is not finite")
    return np.ascontiguousarray(log_NEC)


def _probabilities(values: ArrayLike) -> NDArray[Any]:
    p_NEC = _log(values, "probabilities")
    # Checked in blocks of samples: temporaries as large as the log would triple the memory.
    for start in range(0, len(p_NEC), 4096):
        block = p_NEC[start : start + 4096]
        bad = (abs(block.sum(axis=2) - 1) > _SUM_TOLERANCE).any(axis=1) | (block < 0).any(axis=(1, 2))
        if bad.any():
            raise UserError(
                f"probabilities: those of sample {start + int(bad.argmax())} are negative or do not sum to 1; "
                "of logits, take softmax(logits)"
            )
    return p_NEC


def _labels(values: ArrayLike, log_NEC: NDArray[Any]) -> Int64:
    labels_N = np.asarray(values)
    n, _, c = log_NEC.shape
    if labels_N.shape != (n,) or labels_N.dtype.kind not in "iu":
        raise UserError(
            f"labels: got {labels_N.dtype} {labels_N.shape}, expected one whole number for each of {n} samples"
        )
    bad = (labels_N < 0) | (labels_N >= c)
    if bad.any():
        i = int(bad.argmax())
        raise UserError(f"labels: that of sample {i} is {labels_N[i]}, expected 0 to {c - 1}")
    return labels_N.astype(np.int64)


def _two_classes(log_NEC: NDArray[Any], name: str) -> NDArray[Any]:
    if log_NEC.shape[2] < 2:
        raise UserError(f"{name}: got 1 class, expected at least 2: there is no other to compare with")
    return log_NEC
