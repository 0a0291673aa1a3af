"""Every numeric option of every command with every kind of wrong number: one line, exit code 2."""

import argparse

import pytest

from d2prune.cli import numbers
from d2prune.cli.locations import location
from d2prune.cli.main import main
from d2prune.cli.parser import build_parser

WRONG = (
    "nan", ".nan", "inf", ".inf", "-.inf", "-inf", "1e400", "1" + "0" * 30, "1" + "0" * 5000, "-1", "-1e30",
    "", " ", "abc", "1_000", "0b1", "1:30", "yes", "true", "null", "'5'", "[1]", "1,,2", "\u0663x", "5\n6",
    "\x1b[31m",
)  # fmt: skip
REQUIRED = {
    "run": ["--config", "x"],
    "plan": ["--config", "x"],
    "sweep": ["--config", "x"],
    "submit": ["--config", "x", "--address", "x"],
    "reshard": ["--subset", "x", "--input", "x", "--output", "x"],
    "explain": ["x", "y"],
    "explore": ["x"],
    "runs": ["x"],
    "verify": ["x"],
    "index": ["x"],
    "search": ["x", "y"],
}


def list_options():
    (commands,) = [
        action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)
    ]
    for name, command in commands.choices.items():
        for action in command._actions:
            if action.option_strings and action.nargs != 0:
                yield name, action.option_strings[-1], action


OPTIONS = list(list_options())
NUMERIC = [(command, option) for command, option, action in OPTIONS if action.type not in (None, location)]


def test_every_option_that_takes_numbers_has_bounds():
    for command, option, action in OPTIONS:
        assert action.type not in (int, float), (command, option)
        takes_numbers = action.metavar in ("N", "X", "SEED", "SHARDS") or (command, action.metavar) == (
            "sweep",
            "LIST",
        )
        if option == "--methods":
            continue
        assert takes_numbers == (action.type not in (None, location)), (command, option)
    assert len(NUMERIC) == 23


@pytest.mark.parametrize(("command", "option"), NUMERIC)
def test_wrong_numbers_are_one_line(capsys, command, option):
    for value in WRONG:
        if option.startswith("--gamma") and value == "1" + "0" * 30:
            continue  # any finite gamma is valid
        assert main([command, *REQUIRED[command], f"{option}={value}"]) == 2, value
        shown = capsys.readouterr().err
        assert shown.startswith(f"d2prune: {option}: found ") and "; expected a" in shown, value
        assert shown.endswith("\n") and shown[:-1].isprintable() and len(shown) < 300


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (numbers.whole(0, 10), "10", 10),
        (numbers.whole(0, 10), "1e1", 10),
        (numbers.whole(0, 10), "010", 10),
        (numbers.whole(0, 10), "2.0", 2),
        (numbers.whole(0, numbers.MAX_SEED), str(2**63 - 1), 2**63 - 1),
        (numbers.number(0, 1), "0", 0.0),
        (numbers.number(0, 1, above=True), "1", 1.0),
        (numbers.number(1, 1e15), "12.8e9", 12.8e9),
        (numbers.several(numbers.whole(1, 9)), "1, 5,1", (1, 5)),
    ],
)
def test_right_numbers(read, text, value):
    assert (read(text), type(read(text))) == (value, type(value))


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (numbers.whole(1, 10), "2.5", "found 2.5; expected a whole number from 1 to 10"),
        (numbers.whole(0, numbers.MAX_SEED), "-1", r"expected a whole number from 0 to 2\*\*63 - 1"),
        (numbers.number(0, 1, above=True), "0", "found 0; expected a number above 0 and up to 1"),
        (numbers.number(0, 1), "2", "found 2; expected a number from 0 to 1"),
        (numbers.several(numbers.whole(1, 9)), "1;2", "found 1;2; expected a whole number"),
    ],
)
def test_the_message_has_the_range(read, text, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        read(text)


def test_usage_errors_are_one_line(capsys):
    for arguments in (["rnu"], ["run"], ["run", "--config"], ["run", "--config", "x", "--wrokers", "1"]):
        assert main(arguments) == 2
        shown = capsys.readouterr().err
        assert shown.startswith("d2prune: ") and shown.count("\n") == 1
    assert main(["--version"]) == 0
