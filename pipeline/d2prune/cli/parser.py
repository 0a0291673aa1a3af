"""The parser of the `d2prune` command.

Importing it loads nothing heavy: commands import what they call when they run, so that
`d2prune --help` is quick.
"""

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from d2prune import console
from d2prune.cli import getting_started, output, run, searching, submitting, work_dir
from d2prune.version import __version__

PROGRAM = "d2prune"
_EPILOG = (
    "To get started, run `d2prune demo`: it filters a small bundled pool. Exit codes: 0 success; 1 failure, "
    "the same command resumes; 2 usage or configuration error, reported in one line; 3 another run is in "
    "progress; 130 interrupted."
)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage, and name what a typo may mean."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse; of a command, refuse unknown arguments here, where its options are known."""
        found, rest = super().parse_known_args(args, namespace)
        self._assign_late_word(found, rest)
        if rest and self.get_default("command"):
            options = [option for action in self._actions for option in action.option_strings]
            wrong = rest[0].partition("=")[0]
            self.error(f"unrecognized arguments: {' '.join(rest)}{_suggest(wrong, options)}")
        return found, rest

    def _assign_late_word(self, found: Any, rest: list[str]) -> None:
        """Let an optional positional follow an option; argparse of Python 3.11 leaves it unrecognized."""
        optional = [one for one in self._actions if not one.option_strings and one.nargs == "?"]
        if len(rest) == len(optional) == 1 and not rest[0].startswith("-"):
            if getattr(found, optional[0].dest) is None:
                setattr(found, optional[0].dest, rest.pop())

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with 2."""
        text = message.removeprefix("argument ")
        if match := re.match(r"(\w+): invalid choice: '(.*)' \(choose from (.*)\)$", text):
            name, found, known = match.groups()
            names = re.findall(r"[\w-]+", known)
            expected = _suggest(found, names) or f"; expected one of {', '.join(names)}"
            text = f"{name}: found {found!r}{expected}"
        shown = console.one_line(text)[:1000]
        console.print_error(f"{shown}{'' if text != message else f'; see {self.prog} --help'}")
        self.exit(2)


def _suggest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def build_parser(program: str = PROGRAM) -> argparse.ArgumentParser:
    """The parser with all commands; `arguments.command(arguments)` runs the one that was parsed.

    Args:
        program: name of a script that runs a single command, for its usage and messages.
    """
    parser = Parser(
        prog="d2prune",
        description="Choose which image-text pairs of a pool to train CLIP on.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"d2prune {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for family in (run, submitting, work_dir, searching, output, getting_started):
        family.add_commands(commands)
    if program != PROGRAM:
        for command in commands.choices.values():
            command.prog = program
    return parser
