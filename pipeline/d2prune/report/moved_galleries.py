"""Galleries of samples that entered or left the selection since the run before."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from d2prune.report.cards import Cards, annotate, pick
from d2prune.report.movements import DISPLACED, FREED, NEW
from d2prune.report.page_data import Gallery, SampleCard


def moved_galleries(
    score_name: str, examples: Mapping[str, NDArray[np.int64]], cards: Cards
) -> tuple[Gallery, ...]:
    """The galleries that have samples; `examples` are those of the increment."""
    order = f"Highest {score_name} first."
    galleries = []
    if len(examples.get(DISPLACED, ())):
        text = f"On the left a sample that the run before kept, on the right the new one. {order}"
        displaced = _annotate_pairs(examples[DISPLACED], cards)
        galleries.append(Gallery("Displaced by a new near neighbour", text, displaced, "", pairs=True))
    for reason, title, text in (
        (FREED, "Kept, since a suppressor left the pool", "The run before dropped them."),
        (NEW, "New samples that were kept", "They were not in the earlier pool."),
    ):
        if len(examples.get(reason, ())):
            galleries.append(Gallery(title, f"{text} {order}", pick(cards, examples[reason]), ""))
    return tuple(galleries)


def _annotate_pairs(pairs: NDArray[np.int64], cards: Cards) -> tuple[SampleCard, ...]:
    found: list[SampleCard] = []
    for dropped, new in pairs.reshape(-1, 2).tolist():
        outcome = "kept" if cards[new].kept else "also dropped"
        found += annotate(cards[dropped], "kept before, dropped now"), annotate(cards[new], f"new, {outcome}")
    return tuple(found)
