"""Names of things that can be drawn, from WordNet, for training the demo model's text tower.

Reads ``data.noun`` of Debian's ``wordnet-base`` (format: wndb(5WN)); writes nothing.
"""

from pathlib import Path

__all__ = ["read_nouns"]

_DATA = "usr/share/wordnet/data.noun"
# Lexicographer files: animal, artifact, body, food, object, person, plant, shape.
_DRAWABLE = {5, 6, 8, 13, 17, 18, 20, 25}


def read_nouns(root: Path) -> list[str]:
    """Return nouns for things that can be drawn, sorted, without proper names.

    Takes the first three words of each set of synonyms.

    Args:
        root: folder with the unpacked Debian package.
    """
    found: set[str] = set()
    with (root / _DATA).open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("  "):
                continue
            fields = line.split()
            words = [fields[4 + 2 * index].replace("_", " ") for index in range(int(fields[3], 16))]
            if int(fields[1]) in _DRAWABLE and words[0].islower():
                found.update(words[:3])
    return sorted(found)
