"""Random captions for training the demo model, from titles and keywords. Pure functions."""

from collections import Counter

import numpy as np

from tools.clipart import ImageRecord

__all__ = ["collect_wordings", "random_caption"]


def collect_wordings(
    records: list[ImageRecord], common: int = 12
) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return for each image its titles, the best first, and its keywords.

    A title of more than `common` images ("Part of the Flat Icon Collection") describes none of
    them, so the words of the file name are added as a title.
    """
    count = Counter(record.title for record in records)
    chosen = []
    for record in records:
        titles = [record.title]
        if count[record.title] > common and len(record.name) > 1:
            titles.insert(0, record.name)
        chosen.append((tuple(titles), record.keywords))
    return chosen


def random_caption(words: tuple[tuple[str, ...], tuple[str, ...]], rng: np.random.Generator) -> str:
    """Return a random caption: a title, some keywords in random order, or both."""
    titles, keywords = words
    title = titles[0] if len(titles) == 1 or rng.random() < 0.7 else titles[1]
    if not keywords or rng.random() < 0.25:
        return title
    count = int(rng.integers(1, min(len(keywords), 7) + 1))
    chosen = [keywords[index] for index in rng.permutation(len(keywords))[:count]]
    if rng.random() < 0.5:
        chosen = [word for word in keywords if word in chosen]
    return ", ".join(chosen if rng.random() < 0.2 else [title, *chosen])
