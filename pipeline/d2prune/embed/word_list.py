"""Whether a caption contains a word of a list, decided as DataComp's text-based baseline does.

That baseline looks each word of a caption up in WordNet and keeps the caption if the first meaning of a
word is a class of ImageNet-21k. Nouns come first there, so a plural counts as its singular. Decode
processes import this module: it must load neither torch nor pyarrow.
"""

# Suffix and replacement: the rules of detachment for nouns, morphy(7WN).
_PLURALS = (
    ("s", ""),
    ("ses", "s"),
    ("ves", "f"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("men", "man"),
    ("ies", "y"),
)


def contains_word(caption: str, words: frozenset[str]) -> bool:
    """Return whether a word of the caption, or its singular, is in the list.

    Args:
        caption: the caption. Its words are separated by white space and keep their punctuation, as in
            DataComp: `dog,` is not `dog`.
        words: in lower case.
    """
    return any(_is_listed(word, words) for word in caption.lower().split())


def _is_listed(word: str, words: frozenset[str]) -> bool:
    return word in words or any(singular in words for singular in find_singulars(word))


def find_singulars(word: str) -> list[str]:
    """Return what WordNet's rules derive from a word in lower case; nothing for `glass`, `boss`, ..."""
    if word.endswith("ss"):
        return []
    return [word[: -len(suffix)] + ending for suffix, ending in _PLURALS if word.endswith(suffix)]
