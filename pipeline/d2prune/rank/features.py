"""Feature rows of the pool, for methods that rank it as a whole.

Suffixes: N samples, D feature dimensions.
"""

import numpy as np
import numpy.typing as npt

from d2prune.knn.feature_kind import FeatureKind
from d2prune.parts.features import read_embeddings, unit_features
from d2prune.parts.files import EMBEDDINGS
from d2prune.parts.reader import Parts


def read_features(parts: Parts, kind: FeatureKind, file: str = EMBEDDINGS) -> npt.NDArray[np.float32]:
    """Read the feature rows of the pool, as the graph stage does; float32 [N, D]."""
    rows = []
    for part in range(parts.spans.n_parts):
        raw_ND = read_embeddings(parts, part, file, kind)
        rows.append(unit_features(kind, raw_ND, parts.spans.bounds(part)[0]))
    return np.concatenate(rows)
