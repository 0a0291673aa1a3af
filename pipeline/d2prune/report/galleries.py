"""The galleries and clusters of the page: which samples are shown, and under which heading."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune.parts.reader import Parts
from d2prune.report import gallery_choice, metrics
from d2prune.report.captions import distinctive_words
from d2prune.report.cards import Cards, annotate, pick, read_cards
from d2prune.report.increment_data import Increment
from d2prune.report.moved_galleries import moved_galleries
from d2prune.report.page_data import Cluster, DuplicateGroup, Gallery, SampleCard
from d2prune.report.random_sample import RandomSample
from d2prune.report.record import ReportParams, RunRecord
from d2prune.report.suppression import REPRESENTED
from d2prune.report.survey import Survey
from d2prune.report.tally import Tally

_PER_CLUSTER = 6
# Some of them may have the same image as another one.
_CLUSTER_CANDIDATES = 8
_SEARCHED_FOR_TYPICAL = 100
_PER_GROUP = 6

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Galleries:
    """What the page shows of single samples.

    Attributes:
        unlike: dropped by suppression alone, each followed by its suppressor, which is not alike.
        groups: the largest groups of duplicates.
        others: kept and dropped samples of other kinds.
        clusters: lowest kept share first.
        moved: some samples that entered or left the selection since the run before.
    """

    unlike: Gallery
    groups: tuple[DuplicateGroup, ...]
    others: tuple[Gallery, ...]
    clusters: tuple[Cluster, ...]
    moved: tuple[Gallery, ...]


@dataclass(frozen=True)
class _Chosen:
    """Canonical positions of the samples in each gallery, int64.

    Attributes:
        unlike: int64 [2 P], each dropped sample followed by its suppressor.
        cosines: float64 [P].
        groups: the keeper and some members of each group, and the number of samples it has.
        lowest: dropped with the lowest scores.
        border: around the threshold.
        dense: kept.
        sparse: kept.
    """

    unlike: Positions
    cosines: NDArray[np.float64]
    groups: tuple[tuple[Positions, int], ...]
    lowest: Positions
    border: Positions
    dense: Positions
    sparse: Positions

    def positions(self) -> Positions:
        """All of them, in the order of the galleries."""
        singles = self.lowest, self.border, self.dense, self.sparse
        return np.concatenate([self.unlike, *(group for group, _ in self.groups), *singles])


def build_galleries(
    pool: Parts,
    record: RunRecord,
    sample: RandomSample,
    survey: Survey,
    tally: Tally,
    clustering: tuple[NDArray[np.int64], NDArray[np.float32]],
    params: ReportParams,
    increment: Increment | None = None,
) -> Galleries:
    """Choose samples, read them and describe them.

    Args:
        pool: where rows are read from.
        record: the run.
        sample: the random sample.
        survey: counts of whole parts.
        tally: counts and extremes of the whole pool.
        clustering: int64 [N], the cluster of each row of the sample, and float32 [C, D] centroids.
        params: how many samples, and the seed; with `gallery` 0, galleries are empty.
        increment: what changed since the run before.
    """
    label_N, centroids_CD = clustering
    chosen = _choose(sample, survey, tally, label_N, params)
    typical = {
        label: sample.positions_N[_choose_typical(sample.points_ND, label_N, label, centroids_CD[label])]
        if params.gallery
        else sample.positions_N[:0]
        for label in np.unique(label_N).tolist()
    }
    # Thumbnails are made in this order until the page is full, so clusters lose theirs before galleries do.
    moved = dict(increment.examples) if increment else {}
    positions = np.concatenate([chosen.positions(), *moved.values(), *typical.values()])
    grouped = record.select.params.get("groups") is not None

    def threshold(group: str) -> float:
        # The survey may have missed the lowest one of a large pool; the tally has not.
        return survey.thresholds.get(group, np.inf) if grouped else tally.threshold

    cards = read_cards(pool, record, positions, params.max_pixels, threshold)
    words = distinctive_words(sample.captions, label_N)
    clusters = tuple(
        Cluster(
            words[label] or "no common words",
            count,
            count / len(sample),
            share,
            _with_distinct_images(pick(cards, typical[label])),
        )
        for label, count, share in metrics.cluster_shares(label_N, sample.kept_N)
    )
    others = _single_galleries(record.score_name, chosen, cards)
    return Galleries(
        unlike=_unlike_gallery(record.score_name, chosen, cards),
        groups=_make_groups(chosen, cards),
        others=others if params.gallery and tally.kept else (),
        clusters=clusters if len(clusters) > 1 else (),
        moved=moved_galleries(record.score_name, moved, cards),
    )


def _choose(
    sample: RandomSample, survey: Survey, tally: Tally, label_N: NDArray[np.int64], params: ReportParams
) -> _Chosen:
    half = -(-params.gallery // 2)
    dense, sparse = (
        sample.positions_N[gallery_choice.spread_over_clusters(rows, label_N, half, params.seed)]
        for rows in gallery_choice.dense_and_sparse(sample.support_N, sample.kept_N)
    )
    unlike_S = survey.suppressed_S & (survey.cosine_S < REPRESENTED)
    rows = gallery_choice.best_per_suppressor(unlike_S, survey.score_S, survey.suppressor_S, half)
    pairs = np.stack([survey.positions_S[rows], survey.suppressor_S[rows]], axis=1).reshape(-1)
    groups = [survey.groups.group(number) for number in range(min(len(survey.groups), half))]
    return _Chosen(
        unlike=pairs,
        cosines=survey.cosine_S[rows],
        groups=tuple((group[:_PER_GROUP], len(group)) for group in groups),
        lowest=tally.lowest_dropped.positions[:half],
        border=survey.positions_S[gallery_choice.closest(survey.margin_S, survey.kept_S, half)],
        dense=dense,
        sparse=sparse,
    )


def _unlike_gallery(score_name: str, chosen: _Chosen, cards: Cards) -> Gallery:
    """Pairs of a sample that only suppression dropped, and the neighbour that suppressed it most."""
    found: list[SampleCard] = []
    for index, (dropped, suppressor) in enumerate(chosen.unlike.reshape(-1, 2).tolist()):
        cosine = float(chosen.cosines[index])
        other = cards[suppressor]
        found.append(annotate(cards[dropped], "dropped: suppressed", cosine))
        found.append(
            annotate(other, "suppressor, kept" if other.kept else "suppressor, also dropped", cosine)
        )
    return Gallery(
        "Suppressed, yet no near-duplicate",
        f"Highest {score_name} first. On the left a dropped sample, on the right the neighbour that lowered "
        "its score most.",
        tuple(found),
        "",
        pairs=True,
    )


def _make_groups(chosen: _Chosen, cards: Cards) -> tuple[DuplicateGroup, ...]:
    """The largest groups of duplicates, each with its keeper first."""
    found = []
    for positions, size in chosen.groups:
        keeper, *members = pick(cards, positions)
        first = annotate(keeper, "keeper, kept" if keeper.kept else "keeper, also dropped")
        others = [annotate(card, "also kept" if card.kept else "dropped") for card in members]
        found.append(DuplicateGroup(size, (first, *others)))
    return tuple(found)


def _single_galleries(score_name: str, chosen: _Chosen, cards: Cards) -> tuple[Gallery, ...]:
    """The galleries of samples that are shown one by one, in the order shown."""
    return (
        Gallery(
            f"Dropped with the lowest {score_name}",
            "Image and caption match least here, often because the caption is wrong or meaningless."
            if score_name == "clip_score"
            else "The lowest scores of the pool, before neighbours raise or lower them.",
            pick(cards, chosen.lowest),
            "No sample was dropped.",
        ),
        Gallery(
            "Close to the threshold",
            "The last samples kept and the first ones dropped: a slightly different fraction changes these "
            "first.",
            pick(cards, chosen.border),
            "No sample is close to the threshold.",
        ),
        Gallery(
            "Kept from dense regions",
            "From the densest tenth of the pool: each represents many similar samples.",
            pick(cards, chosen.dense),
            "Nothing was kept.",
        ),
        Gallery(
            "Kept from sparse regions",
            "From the sparsest tenth of the pool: unlike any other sample, so nothing else represents them.",
            pick(cards, chosen.sparse),
            "Nothing was kept.",
        ),
    )


def _choose_typical(
    points_ND: NDArray[np.float32], label_N: NDArray[np.int64], label: int, centroid_D: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Rows of a cluster nearest to its centroid, without near-copies of one another."""
    rows = np.flatnonzero(label_N == label)
    # The points are unit vectors, so the highest product is the lowest distance.
    nearest = rows[np.argsort(-(points_ND[rows] @ centroid_D), kind="stable")[:_SEARCHED_FOR_TYPICAL]]
    alike_MM = points_ND[nearest] @ points_ND[nearest].T >= metrics.NEAR_DUPLICATE
    chosen: list[int] = []
    for index in range(len(nearest)):
        if len(chosen) < _CLUSTER_CANDIDATES and not alike_MM[index, chosen].any():
            chosen.append(index)
    return np.asarray(nearest[chosen], dtype=np.int64)


def _with_distinct_images(cards: tuple[SampleCard, ...]) -> tuple[SampleCard, ...]:
    """The first cards with different images: captions that differ keep copies of an image apart."""
    first = {card.image or card.uid: card for card in reversed(cards)}
    return tuple(card for card in cards if first[card.image or card.uid] is card)[:_PER_CLUSTER]
