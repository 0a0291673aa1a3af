"""Give the package index the README with the project's URL; everything else is in pyproject.toml."""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
_SOURCE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"]


def _make_absolute(link: re.Match[str]) -> str:
    mark, text, target = link.groups()
    return f"{mark}[{text}]({_SOURCE}/{'raw' if mark else 'blob'}/main/{target})"


# A link or an image, unless it has a scheme or leads to a heading of the page.
_RELATIVE = re.compile(r"(!?)\[([^]]*)\]\((?!\w+:|#)([^)]+)\)")

_README = (ROOT / "README.md").read_text(encoding="utf-8").replace("<this repository>", _SOURCE)

setup(
    long_description=_RELATIVE.sub(_make_absolute, _README),
    long_description_content_type="text/markdown",
)
