"""Random wordings of captions, to train the demo model on.

Pure functions of records and generators.
"""

from collections import Counter

import numpy as np

from tools.clipart import Picture

__all__ = ["worded", "wordings"]


def wordings(pictures: list[Picture], common: int = 12) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Titles and keywords to word each picture's captions with.

    A title that more than `common` pictures bear ("Part of the Flat Icon Collection") says nothing
    about any of them, so the words of the file name stand beside it.

    Returns:
        For each picture its titles, the best first, and its keywords.
    """
    count = Counter(picture.title for picture in pictures)
    chosen = []
    for picture in pictures:
        titles = [picture.title]
        if count[picture.title] > common and len(picture.name) > 1:
            titles.insert(0, picture.name)
        chosen.append((tuple(titles), picture.keywords))
    return chosen


def worded(words: tuple[tuple[str, ...], tuple[str, ...]], rng: np.random.Generator) -> str:
    """One random wording: the title, some keywords in some order, or both."""
    titles, keywords = words
    title = titles[0] if len(titles) == 1 or rng.random() < 0.7 else titles[1]
    if not keywords or rng.random() < 0.25:
        return title
    count = int(rng.integers(1, min(len(keywords), 7) + 1))
    chosen = [keywords[index] for index in rng.permutation(len(keywords))[:count]]
    if rng.random() < 0.5:
        chosen = [word for word in keywords if word in chosen]
    return ", ".join(chosen if rng.random() < 0.2 else [title, *chosen])
