"""Running sums of a training log: the scores asked for, without the logits of every epoch.

Reads batches of logits; keeps 8 to 10 bytes a sample and score, twice: of the complete epochs, and
with the current one. Invariant: each score has the bits that `training.py` computes from a log that
keeps every epoch, because both add the same terms to the same sum in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.errors import ArgumentError
from d2prune.scores import training_kernels
from d2prune.scores.probabilities import softmax

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
State = dict[str, NDArray[Any]]

NAMES = ("aum", "el2n", "entropy", "forgetting", "margin")
"""Scores whose state is a few numbers a sample; those of the others are as large as epochs of logits."""


class RunningScores:
    """The sums of some scores over N samples."""

    def __init__(self, n_samples: int, names: Sequence[str]) -> None:
        """Start at no epoch.

        Raises:
            ArgumentError: an unknown score, or one that needs every epoch.
        """
        if unknown := [name for name in names if name not in NAMES]:
            raise ArgumentError(
                f"TrainingLog: found scores {unknown[0]!r}; expected some of {', '.join(NAMES)} (the other "
                "scores need every epoch: leave out `scores`)"
            )
        if not names:
            raise ArgumentError("TrainingLog: found no scores; expected at least one, or None for all epochs")
        self.names = tuple(dict.fromkeys(names))
        self._complete = {name: _new_state(name, n_samples) for name in self.names}
        self._current = _copy(self._complete)

    def record(self, index_B: Int64, logit_BC: Float32, label_B: Int64) -> None:
        """Add a batch to the current epoch; the last record of a sample in an epoch counts."""
        p_BC = softmax(logit_BC)
        for name in self.names:
            state = {key: values[index_B] for key, values in self._complete[name].items()}
            _ADD[name](state, logit_BC, p_BC, label_B)
            for key, values in state.items():
                self._current[name][key][index_B] = values

    def end_epoch(self) -> None:
        """Complete the current epoch, in which every sample was recorded."""
        self._complete = _copy(self._current)

    def compute(self, name: str, n_epochs: int) -> Float32:
        """Return a score over the complete epochs, float32 [N].

        Raises:
            ArgumentError: the log does not keep this score.
        """
        if name not in self.names:
            raise ArgumentError(
                f"{name}: found a log that keeps {', '.join(self.names)} only; expected {name} in its "
                "`scores`, or a log that keeps every epoch"
            )
        state = self._complete[name]
        total_N = state["total"]
        if name == "forgetting":
            return np.asarray(np.where(state["ever_right"], total_N, n_epochs), np.float32)
        mean_N = total_N / n_epochs
        return np.asarray(1.0 - mean_N if name == "margin" else mean_N, np.float32)

    def dump(self) -> dict[str, NDArray[Any]]:
        """Return the complete epochs as named arrays, for a file."""
        return {
            f"{name}.{key}": values for name in self.names for key, values in self._complete[name].items()
        }

    @classmethod
    def load(cls, n_samples: int, arrays: Mapping[str, NDArray[Any]]) -> RunningScores:
        """Read what `dump` returned.

        Raises:
            ValueError: an array is missing, or is not one of `dump`.
        """
        running = cls(n_samples, [name.partition(".")[0] for name in arrays])
        for name, values in arrays.items():
            score, _, key = name.partition(".")
            place = running._complete[score].get(key)
            if place is None or place.shape != values.shape or place.dtype != values.dtype:
                raise ValueError(f"{name}: found {values.dtype} {values.shape}")
            place[:] = values
        running._current = _copy(running._complete)
        return running


def _new_state(name: str, n_samples: int) -> State:
    state: State = {"total": np.zeros(n_samples)}
    if name == "forgetting":
        state |= {"was_right": np.zeros(n_samples, np.bool_), "ever_right": np.zeros(n_samples, np.bool_)}
    return state


def _copy(states: Mapping[str, State]) -> dict[str, State]:
    return {name: {key: values.copy() for key, values in state.items()} for name, state in states.items()}


def _add_aum(state: State, logit_BC: Float32, _: Float32, label_B: Int64) -> None:
    training_kernels.aum(logit_BC[:, None], label_B, state["total"])


def _add_el2n(state: State, _: Float32, p_BC: Float32, label_B: Int64) -> None:
    training_kernels.el2n(p_BC[:, None], label_B, np.ones((len(p_BC), 1)), state["total"])


def _add_entropy(state: State, _: Float32, p_BC: Float32, __: Int64) -> None:
    training_kernels.entropy(p_BC[:, None], state["total"])


def _add_margin(state: State, _: Float32, p_BC: Float32, __: Int64) -> None:
    training_kernels.margin(p_BC[:, None], state["total"])


def _add_forgetting(state: State, logit_BC: Float32, _: Float32, label_B: Int64) -> None:
    right_B = logit_BC.argmax(axis=1) == label_B
    state["total"] += state["was_right"] & ~right_B
    state["was_right"] = right_B
    state["ever_right"] |= right_B


_ADD: Mapping[str, Callable[[State, Float32, Float32, Int64], None]] = {
    "aum": _add_aum,
    "el2n": _add_el2n,
    "entropy": _add_entropy,
    "forgetting": _add_forgetting,
    "margin": _add_margin,
}
