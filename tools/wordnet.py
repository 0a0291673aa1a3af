"""Names of things one can draw, from WordNet: for the demo model's text tower.

Reads ``data.noun`` of Debian's ``wordnet-base`` (format: wndb(5WN)); writes nothing.
"""

from pathlib import Path

__all__ = ["nouns"]

_DATA = "usr/share/wordnet/data.noun"
# Lexicographer files of things one can draw: animal, artifact, body, food, object, person, plant, shape.
_DRAWABLE = {5, 6, 8, 13, 17, 18, 20, 25}


def nouns(root: Path) -> list[str]:
    """Nouns for things one can draw, sorted; the first three of each set of synonyms, no proper names.

    Args:
        root: where the Debian package is unpacked.
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
