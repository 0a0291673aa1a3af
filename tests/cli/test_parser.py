"""The parser: every command has help, and the help agrees with the stages."""

import argparse
import os
import re

import pytest

from d2prune.cli.main import main
from d2prune.cli.parser import build_parser
from d2prune.runs.stages import STAGES


def commands() -> dict[str, argparse.ArgumentParser]:
    (action,) = [
        action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)
    ]
    return dict(action.choices)


@pytest.mark.parametrize("name", commands())
def test_every_command_and_argument_has_help(name):
    command = commands()[name]
    assert command.description and command.description.endswith(".")
    assert callable(command.get_default("command"))
    for action in command._actions:
        assert action.help, action


def test_help_of_stop_after_lists_the_stages():
    (option,) = [action for action in commands()["run"]._actions if action.dest == "stop_after"]
    listed = re.findall(r"\w+", option.help.partition(": ")[2].partition(";")[0])
    assert [word for word in listed if word != "or"] == [stage.name for stage in STAGES]


def test_no_command_prints_the_help(capsys):
    assert main([]) == 0
    assert capsys.readouterr().out == build_parser().format_help()


@pytest.mark.parametrize(
    "words, line",
    [
        ("rnu", "COMMAND: found 'rnu'; did you mean run?"),
        ("Verify x", "COMMAND: found 'Verify'; did you mean verify?"),
        ("zzzz", f"COMMAND: found 'zzzz'; expected one of {', '.join(commands())}"),
        ("run --confgi x", "unrecognized arguments: --confgi; did you mean --config?"),
        ("verify out --fulll", "unrecognized arguments: --fulll; did you mean --full?"),
        ("explain w uid --rn=3", "unrecognized arguments: --rn=3; did you mean --run?"),
        ("verify out extra", "unrecognized arguments: extra"),
        ("completion fish", "shell: found 'fish'; expected one of bash, zsh, tcsh"),
        ("verify", "the following arguments are required: OUTPUT"),
    ],
)
def test_typo_is_answered(capsys, words, line):
    assert main(words.split()) == 2
    assert capsys.readouterr().err.removeprefix("d2prune: ").startswith(line)


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_has_every_command_and_option(capsys, shell):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in commands())
    # tcsh completes options of all commands together.
    assert "--stop-after" in script or "stop-after" in script


def list_locations():
    """(command, argument) of every argument that names a place."""
    for name, command in commands().items():
        for action in command._actions:
            places = ("FILE", "FOLDER", "URL", "OUTPUT", "WORK_DIR", "WORK_DIR|OUTPUT", "POOL", "MODEL")
            if action.metavar in places and action.dest != "set":
                yield pytest.param(action, id=f"{name} {action.dest}")


@pytest.mark.parametrize("action", list_locations())
def test_home_is_expanded_in_every_place(action):
    assert action.type("~/x") == os.path.expanduser("~/x")
    assert action.type("s3://b/~x") == "s3://b/~x"
