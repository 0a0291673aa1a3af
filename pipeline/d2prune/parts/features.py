"""Feature rows of a part: the vectors between which distances are measured.

N rows, D dimensions per side. `image+text` has both sides in one row, 2 D wide.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.knn.feature_kind import FeatureKind
from d2prune.knn.features import features
from d2prune.parts.reader import Parts

Float32 = NDArray[np.float32]


def read_embeddings(parts: Parts, part: int, file: str, kind: FeatureKind) -> NDArray[Any]:
    """Read the embeddings of a part as they are stored.

    Args:
        parts: the pool.
        part: number of the part.
        file: name of the file with one model's embeddings.
        kind: which sides to read.

    Returns:
        [N, D], or [N, 2 D] for `image+text`.

    Raises:
        InfrastructureError: as `artifacts.read_file`.
        UserError: an array of the input that holds them is missing or has changed.
    """
    raw_ND: NDArray[Any] | None = None
    start, end = 0, int(np.diff(parts.spans.bounds(part))[0])
    # One block at a time into one array, so that memory holds the part only as file and as array.
    for sides in parts.read_vectors(part, file, side_names(kind)):
        bounds = np.cumsum([0, *(side.shape[1] for side in sides)])
        if raw_ND is None:
            raw_ND = np.empty((end, int(bounds[-1])), np.result_type(*sides))
        for side, left, right in zip(sides, bounds, bounds[1:], strict=False):
            raw_ND[start : start + len(side), left:right] = side
        start += len(sides[0])
    assert raw_ND is not None and start == end
    return raw_ND


def side_names(kind: FeatureKind) -> list[str]:
    """Names of the columns of embeddings that feature rows consist of."""
    return [f"{side}_emb" for side in ("image", "text") if side in kind.split("+")]


def unit_features(kind: FeatureKind, raw_ND: NDArray[Any], first_row: int = 0) -> Float32:
    """Unit-norm feature rows of embeddings. The bits of a row depend on that row alone.

    Args:
        kind: as given to `read_embeddings`.
        raw_ND: as `read_embeddings` returns it, [N, D] or [N, 2 D].
        first_row: canonical position of row 0, for messages.

    Returns:
        float32, the shape of `raw_ND`.

    Raises:
        UserError: as `features`.
    """
    if kind == "image":
        return features("image", raw_ND, None, first_row)
    if kind == "text":
        return features("text", None, raw_ND, first_row)
    half = raw_ND.shape[1] // 2
    return features("image+text", raw_ND[:, :half], raw_ND[:, half:], first_row)
