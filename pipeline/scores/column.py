"""A stored score as difficulty: read a column, shift it, clamp it at zero."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import artifacts
from pipeline.artifacts import Receipt
from pipeline.errors import UserError


def read_score(embed_folder: str, parts: Sequence[Receipt], name: str, option: str) -> npt.NDArray[np.float32]:
    """A score of every sample, float32 [N], in canonical order.

    Raises:
        UserError: the embed artifact has no such column, it is not numeric, or a value is not finite.
    """
    scores = []
    for receipt in parts:
        try:
            column = artifacts.read_table(embed_folder, receipt, "samples.parquet", [name])[name]
        except (KeyError, pa.ArrowInvalid) as error:
            raise UserError(
                f"{option}: no score is called {name!r}; expected clip_score or a number of embed.fields"
            ) from error
        if not pa.types.is_floating(column.type) and not pa.types.is_integer(column.type):
            raise UserError(f"{option}: {name!r} is {column.type}, expected a number")
        score_M = column.to_numpy().astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(score_M))
        if bad.size:
            raise UserError(
                f"{option}: {name} of row {bad[0]} in {receipt.key} is {score_M[bad[0]]}, expected a number"
            )
        scores.append(score_M)
    return np.concatenate(scores)


def shift(score_N: npt.NDArray[np.float32], offset: float) -> npt.NDArray[np.float32]:
    """The kernel's difficulty: `max(score + offset, 0)`, in float64, then float32.

    Args:
        score_N: a finite score, higher = more wanted.
        offset: what to add, in the score's unit. The released DataComp code adds 0.115 to CLIP scores.

    Returns:
        float32 [N], all >= 0.
    """
    return np.maximum(score_N.astype(np.float64) + offset, 0.0).astype(np.float32)
