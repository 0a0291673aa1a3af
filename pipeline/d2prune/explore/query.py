"""What a list of samples shows: a search, filters and an order."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

Sort = Literal["position", "selection", "score", "forward", "suppression", "cluster", "reason"]
SORTS: tuple[str, ...] = get_args(Sort)
Among = Literal["", "only-a", "only-b", "both", "neither"]
AMONG: tuple[str, ...] = get_args(Among)
MODES = ("", "meaning")
"""What a search's text is: words to match, or a description."""

Outline = tuple[tuple[int, int], ...]
"""Corners of a closed line on the map, in its coordinates."""

_WORD = re.compile(r'"([^"]+)"|(\S+)')


@dataclass(frozen=True)
class Query:
    """A search.

    Attributes:
        words: all of these must match, in any order, see `texts.Texts.match`; none: every sample does.
        reason: a reason of the decisions, such as `below-budget`; empty: all.
        cluster: number of a cluster; None: all.
        low: lowest score, without its offset; None: no limit.
        high: highest score; None: no limit.
        a: a selection, see `selections.Selections.parse`; empty: the run's own.
        b: the selection that `a` is compared with.
        among: which samples of the comparison; empty: all.
        text: samples that match it by meaning, most similar first, regardless of `sort`; empty: none.
        like: likewise those most similar to the sample at this canonical position; None: none.
        image: likewise those most similar to an image that was sent, see `Meaning.add_image`; empty: none.
        outline: only samples that are on the map and inside it; None: all.
        sort: by canonical position, selection score, score, forward score or suppression received;
            by cluster or reason, and within one by selection score.
        descending: highest first.
    """

    words: tuple[str, ...] = ()
    reason: str = ""
    cluster: int | None = None
    low: float | None = None
    high: float | None = None
    a: str = ""
    b: str = ""
    among: Among = ""
    text: str = ""
    like: int | None = None
    image: str = ""
    outline: Outline | None = None
    sort: Sort = "selection"
    descending: bool = True

    @property
    def by_meaning(self) -> bool:
        """Whether the list is of the samples nearest to a text, to a sample or to an image."""
        return bool(self.text or self.image) or self.like is not None


def split_words(text: str) -> tuple[str, ...]:
    """The distinct words of a search; double quotes make a phrase one word."""
    words = (phrase.strip() or word for phrase, word in _WORD.findall(text))
    return tuple(dict.fromkeys(word for word in words if word))
