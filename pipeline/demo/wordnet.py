"""What words mean, from WordNet: pairs of a noun and its description, for the demo model's text tower.

Reads ``data.noun`` of Debian's ``wordnet-base`` (format: wndb(5WN)); writes nothing. Ten thousand captions use most
words once or never; these pairs tell the model that a lighthouse is a tower.
"""

import re
from pathlib import Path

__all__ = ["noun_descriptions"]

_DATA = "usr/share/wordnet/data.noun"
# Lexicographer files of things one can draw: animal, artifact, body, food, object, person, plant, shape.
_DRAWABLE = {5, 6, 8, 13, 17, 18, 20, 25}


def noun_descriptions(root: Path) -> list[tuple[str, tuple[str, ...]]]:
    """Nouns for things one can draw, each with its descriptions.

    Args:
        root: where the Debian package is unpacked.

    Returns:
        Sorted pairs of a noun and its descriptions: synonyms and hypernyms as a list of words, and the gloss.
    """
    words: dict[str, list[str]] = {}
    parents: dict[str, list[str]] = {}
    glosses: dict[str, str] = {}
    drawable = []
    with (root / _DATA).open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("  "):
                continue
            head, _, gloss = line.partition(" | ")
            fields = head.split()
            offset, count = fields[0], int(fields[3], 16)
            words[offset] = [fields[4 + 2 * index].replace("_", " ") for index in range(count)]
            parents[offset] = re.findall(r" @ (\d{8}) n ", head + " ")
            glosses[offset] = gloss.partition(";")[0].strip()
            if int(fields[1]) in _DRAWABLE and words[offset][0].islower():
                drawable.append(offset)
    pairs = []
    for offset in drawable:
        chain: list[str] = []
        step = offset
        while parents[step] and len(chain) < 3:
            step = parents[step][0]
            chain.append(words[step][0])
        for noun in words[offset][:3]:
            others = [word for word in words[offset][:3] if word != noun]
            description = ", ".join([*others, *chain])
            pairs.append((noun, tuple(text for text in (description, glosses[offset]) if text)))
    return sorted(pairs)
