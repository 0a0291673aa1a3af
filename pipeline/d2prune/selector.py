"""D2 Pruning as a scikit-learn estimator, in the extra `sklearn`.

Reads embeddings X and a difficulty; `get_support` gives the samples kept, as the selectors of
scikit-learn give the features kept.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2prune.d2.coreset import Coreset, d2_prune
from d2prune.d2.gamma import AUTO, DifficultyKind
from d2prune.extras import require

require("sklearn", "D2Pruner")

from sklearn.base import BaseEstimator  # noqa: E402
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data  # noqa: E402


class D2Pruner(BaseEstimator):  # type: ignore[misc]
    """Keep the difficult and diverse share of the samples; see `d2_prune`.

    Selects samples, not features: it has no `transform`, which must keep the number of samples.

    Attributes:
        coreset_: the result of `d2_prune`.
        support_: bool [N], True for the samples kept.
        n_features_in_: number of columns of X.
        feature_names_in_: names of the columns of X, if it is a frame.

    Example:
        >>> import numpy as np
        >>> X = np.random.default_rng(0).normal(size=(100, 8))
        >>> pruner = D2Pruner(fraction=0.3).fit(X, X[:, 0])
        >>> X[pruner.get_support()].shape
        (30, 8)
    """

    def __init__(
        self,
        fraction: float | None = None,
        *,
        size: int | None = None,
        n_neighbors: int = 5,
        gamma_forward: float | str = AUTO,
        gamma_reverse: float | str = AUTO,
        target_recall: float | None = None,
        difficulty_kind: DifficultyKind = "training",
        offset: float | Literal["auto"] = "auto",
    ) -> None:
        """Set the parameters of `d2_prune`; `fit` checks them."""
        self.fraction = fraction
        self.size = size
        self.n_neighbors = n_neighbors
        self.gamma_forward = gamma_forward
        self.gamma_reverse = gamma_reverse
        self.target_recall = target_recall
        self.difficulty_kind = difficulty_kind
        self.offset = offset

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> D2Pruner:
        """Select samples.

        Args:
            X: floats [N, D], embeddings.
            y: the difficulty, finite numbers [N]; higher = more wanted.
            groups: labels [N]; each group keeps its share.

        Returns:
            The estimator.

        Raises:
            ArgumentError: as for `d2_prune`.
            ValueError: X or y is not what scikit-learn accepts.
        """
        rows_ND = validate_data(self, X, dtype=[np.float32, np.float64])
        if y is None:
            raise ValueError("D2Pruner requires y to be passed, but the target y is None")
        self.coreset_: Coreset = d2_prune(
            rows_ND,
            column_or_1d(y, warn=True),
            self.fraction,
            self.n_neighbors,
            self.gamma_forward,
            self.gamma_reverse,
            groups=groups,
            target_recall=self.target_recall,
            difficulty_kind=self.difficulty_kind,
            offset=self.offset,
            size=self.size,
        )
        self.support_ = self.coreset_.mask
        return self

    def get_support(self, indices: bool = False) -> NDArray[Any]:
        """Return the samples kept: bool [N], or with `indices` int64 [m], ascending.

        `coreset_.indices` has them in pick order.

        Raises:
            NotFittedError: `fit` was not called.
        """
        check_is_fitted(self)
        return np.flatnonzero(self.support_) if indices else self.support_

    def fit_select(self, X: Any, y: ArrayLike, groups: ArrayLike | None = None) -> Any:
        """Return the rows of X that `fit` keeps, in their order; X of any type that a mask indexes."""
        kept_N = self.fit(X, y, groups).get_support()
        return X[kept_N]

    def __sklearn_tags__(self) -> Any:
        """Tags: the difficulty is required."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags
