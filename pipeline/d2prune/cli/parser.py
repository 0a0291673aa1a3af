"""The parser of the `d2prune` command.

Importing it loads nothing heavy: commands import what they call when they run, so that
`d2prune --help` is quick.
"""

import argparse
from typing import NoReturn

from d2prune import console
from d2prune.cli import getting_started, output, run, searching, work_dir
from d2prune.version import __version__

_EPILOG = (
    "To get started, run `d2prune demo`: it filters a small bundled pool. Exit codes: 0 success; 1 failure, "
    "the same command resumes; 2 usage or configuration error, reported in one line; 3 another run is in "
    "progress; 130 interrupted."
)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with 2."""
        text = message.removeprefix("argument ")
        shown = console.one_line(text)[:1000]
        self.exit(2, f"d2prune: {shown}{'' if text != message else f'; see {self.prog} --help'}\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands; `arguments.command(arguments)` runs the one that was parsed."""
    parser = Parser(
        prog="d2prune",
        description="Choose which image-text pairs of a pool to train CLIP on.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"d2prune {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for family in (run, work_dir, searching, output, getting_started):
        family.add_commands(commands)
    return parser
