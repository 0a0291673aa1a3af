"""Which embeddings of a sample distances are measured on.

Apart from `features.py`, which loads numba: parameters and plans only name the kind.
"""

from typing import Literal

FeatureKind = Literal["image", "text", "image+text"]
