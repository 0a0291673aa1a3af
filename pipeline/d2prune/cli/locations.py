"""Type of options that name a file or folder: what `argparse` calls to convert one value."""

import os


def location(text: str) -> str:
    """A path or URL, with `~` expanded: a shell leaves it in `--output=~/x` and in quotes."""
    return os.path.expanduser(text) if text.startswith("~") else text
