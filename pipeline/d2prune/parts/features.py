"""Feature rows of a part: the vectors between which distances are measured.

N rows, D dimensions per side. `image+text` has both sides in one row, 2 D wide.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.knn.feature_kind import FeatureKind
from d2prune.knn.features import features
from d2prune.store import artifacts
from d2prune.store.artifacts import Receipt
from d2prune.store.columns import vectors

Float32 = NDArray[np.float32]


def read_embeddings(folder: str, receipt: Receipt, file: str, kind: FeatureKind) -> NDArray[Any]:
    """Read the embeddings of a part as they are stored.

    Args:
        folder: `work_dir/embed`.
        receipt: of the part.
        file: name of the file with one model's embeddings.
        kind: which sides to read.

    Returns:
        [N, D], or [N, 2 D] for `image+text`.

    Raises:
        InfrastructureError: as `artifacts.read_file`.
    """
    names = [f"{side}_emb" for side in ("image", "text") if side in kind.split("+")]
    raw_ND: NDArray[Any] | None = None
    start = 0
    # One row group at a time into one array, so that memory holds the part only as file and as
    # array.
    for table in artifacts.read_row_groups(folder, receipt, file, names):
        sides = [vectors(table[name]) for name in names]
        bounds = np.cumsum([0, *(side.shape[1] for side in sides)])
        if raw_ND is None:
            raw_ND = np.empty((receipt.rows(file), int(bounds[-1])), np.result_type(*sides))
        for side, left, right in zip(sides, bounds, bounds[1:], strict=False):
            raw_ND[start : start + len(side), left:right] = side
        start += len(table)
    assert raw_ND is not None
    return raw_ND


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
