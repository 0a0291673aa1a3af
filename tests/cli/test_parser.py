"""The parser: every command has help, and the help agrees with the stages."""

import argparse
import re

import pytest

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


def test_command_is_required(capsys):
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args([])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "d2prune: the following arguments are required: COMMAND; see d2prune --help\n"
    )
