"""What a setting of a sweep keeps, in numbers, and which setting to recommend.

N samples of the pool, S in the random sample, Q queries, M kept.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from d2prune.config.model import RunConfig
from d2prune.errors import UserError
from d2prune.knn.csr import Graph
from d2prune.knn.features import features
from d2prune.parts.files import SAMPLES
from d2prune.parts.reader import Parts
from d2prune.report import metrics

# As in the report, so that figures are comparable.
_SAMPLE_SIZE, _QUERIES = 10_000, 2_000
# Squared distance of unit vectors with the cosine from which two samples count as near-duplicates.
_NEAR_DUPLICATE_SQ = 2 - 2 * metrics.NEAR_DUPLICATE
# Low scores are the lowest fifth of the pool's.
_LOW_SHARE = 0.2
FEW_LOW_SCORES = 0.01
"""Largest share of low scores among the kept samples of a recommended setting. On the icon pool, settings
that keep more train worse models (docs/results/icons.md)."""

SweepMethod = Literal["d2", "score", "s_clip_loss", "semdedup", "random"]
METHODS: tuple[SweepMethod, ...] = ("d2", "score", "s_clip_loss", "semdedup", "random")
"""`score`: top by difficulty. `s_clip_loss`: top by that score, if some run in the work_dir has computed it.
`semdedup`: near-duplicates last, the others by difficulty."""


@dataclass(frozen=True)
class Setting:
    """One combination of values.

    Attributes:
        method: `d2`, or a baseline, for which only the fraction counts.
        n_neighbors: k; 0 for a baseline.
        gamma_forward: as `check_gamma` returns it; 0 for a baseline.
        gamma_reverse: likewise.
        fraction: share of the pool to keep.
    """

    method: SweepMethod
    n_neighbors: int
    gamma_forward: float | str
    gamma_reverse: float | str
    fraction: float


@dataclass(frozen=True)
class Outcome:
    """What a setting keeps.

    Attributes:
        setting: the setting.
        gammas: the setting's gammas as numbers.
        kept: number of samples.
        mean_score: of the kept samples, without the offset.
        low_scores: share of the kept samples whose score is in the lowest fifth of the pool's: where
            a low score means a wrong caption, most of these are wrong.
        duplicates: share of the kept samples with a kept near-duplicate (cosine 0.95 or more) among
            their neighbours in the graph with the largest k.
        duplicate_pairs: number of such pairs.
        contents: number of kept samples if near-duplicates count once.
        coverage: mean distance from the pool's samples to the nearest kept one, in a random sample.
        overlap: samples kept by both this setting and the run, as a share of the smaller selection;
            None if the run has no selection.
        flagged: share of the flagged samples that is dropped; None if none are given.
        seconds: time to rank the pool.
    """

    setting: Setting
    gammas: tuple[float, float]
    kept: int
    mean_score: float
    low_scores: float
    duplicates: float
    duplicate_pairs: int
    contents: int
    coverage: float
    overlap: float | None
    flagged: float | None
    seconds: float


def recommend(outcomes: Sequence[Outcome]) -> frozenset[Setting]:
    """Choose one setting per fraction: of those that keep few low scores, the one that covers the pool best.

    Few are at most FEW_LOW_SCORES of the kept samples from the lowest fifth; if no setting keeps so few,
    it is the one that keeps fewest.
    """
    chosen = set()
    for fraction in {outcome.setting.fraction for outcome in outcomes}:
        rivals = [outcome for outcome in outcomes if outcome.setting.fraction == fraction]
        few = [outcome for outcome in rivals if outcome.low_scores <= FEW_LOW_SCORES]
        if few:
            best = min(few, key=lambda outcome: (outcome.coverage, outcome.duplicates))
        else:
            best = min(rivals, key=lambda outcome: (outcome.low_scores, outcome.coverage))
        chosen.add(best.setting)
    return frozenset(chosen)


class Evaluator:
    """Measures selections; holds what every setting is measured on."""

    def __init__(
        self,
        config: RunConfig,
        parts: Parts,
        score_N: NDArray[np.float32],
        widest: Graph,
        flagged: Collection[str],
        kept_by_run_N: NDArray[np.bool_] | None,
    ) -> None:
        self._score_N, self._kept_by_run_N = score_N, kept_by_run_N
        near = widest.sq_distances <= _NEAR_DUPLICATE_SQ
        rows = np.repeat(np.arange(len(parts)), np.diff(widest.indptr))
        self._near_from, self._near_to = rows[near], widest.indices[near]
        self._content_N = _label_contents(len(parts), self._near_from, self._near_to)
        self._low_N = score_N < np.quantile(score_N, _LOW_SHARE)
        rng = np.random.default_rng(0)
        self._sample_S = np.sort(rng.permutation(len(parts))[:_SAMPLE_SIZE])
        vectors = parts.take_vectors(self._sample_S, config.embeddings_file)
        points_SD = features(config.graph.features, *vectors)
        self._queries_Q = np.sort(rng.permutation(len(self._sample_S))[:_QUERIES])
        self._distances_QS = metrics.distances(points_SD[self._queries_Q], points_SD)
        self._flagged_N = _find_flagged(parts, flagged) if flagged else None

    def evaluate(
        self, setting: Setting, gammas: tuple[float, float], positions_M: NDArray[np.int64], seconds: float
    ) -> Outcome:
        """Measure a selection, given by the canonical positions of its samples."""
        kept_N = np.zeros(len(self._score_N), bool)
        kept_N[positions_M] = True
        repeated = self._near_from[kept_N[self._near_from] & kept_N[self._near_to]]
        kept_S = kept_N[self._sample_S]
        order_S = np.concatenate([np.flatnonzero(kept_S), np.flatnonzero(~kept_S)])
        sizes = np.array([max(int(kept_S.sum()), 1)])
        (coverage,) = metrics.coverage_gaps(self._distances_QS, self._queries_Q, order_S, sizes)
        overlap = None
        if self._kept_by_run_N is not None:
            smaller = max(min(kept_N.sum(), self._kept_by_run_N.sum()), 1)
            overlap = float((kept_N & self._kept_by_run_N).sum() / smaller)
        return Outcome(
            setting=setting,
            gammas=gammas,
            kept=len(positions_M),
            mean_score=float(self._score_N[positions_M].mean(dtype=np.float64)),
            low_scores=float(self._low_N[positions_M].mean()),
            duplicates=len(np.unique(repeated)) / len(positions_M),
            duplicate_pairs=len(repeated) // 2,
            contents=len(np.unique(self._content_N[positions_M])),
            coverage=float(coverage),
            overlap=overlap,
            flagged=None if self._flagged_N is None else float((~kept_N[self._flagged_N]).mean()),
            seconds=seconds,
        )


def _label_contents(n: int, from_E: NDArray[np.int64], to_E: NDArray[np.int64]) -> NDArray[np.int64]:
    """Label connected samples alike, by their lowest position; int64 [N]."""
    label_N = np.arange(n)
    while True:
        lowest_N = label_N.copy()
        np.minimum.at(lowest_N, from_E, label_N[to_E])
        # Follow labels to their own labels, so that long chains need few rounds.
        lowest_N = lowest_N[lowest_N]
        if (lowest_N == label_N).all():
            return label_N
        label_N = lowest_N


def _find_flagged(parts: Parts, flagged: Collection[str]) -> NDArray[np.bool_]:
    """Which samples have a flagged uid, bool [N]."""
    names = frozenset(flagged)
    uids = parts.column(SAMPLES, "uid").to_pylist()
    flagged_N = np.fromiter((uid in names for uid in uids), bool, len(uids))
    if not flagged_N.any():
        raise UserError(
            f"--flagged: found none of its {len(names)} uids in the pool, such as {min(names)[:40]!r}"
        )
    return flagged_N
