"""Write docs/reference/cli.md from the command's own parser: `python docs/make_cli.py`."""

import argparse
from pathlib import Path

from d2prune.cli import main

HEAD = """# Command line

Exit codes: 0 done; 1 the run failed, and the same command resumes it; 2 a mistake of yours, told in one line; 3 another
run is at work; 130 interrupted. (Made by `docs/make_cli.py`.)
"""


def commands() -> dict[str, tuple[str, argparse.ArgumentParser]]:
    """Name -> (one-line help, parser) of every command."""
    parser = main._parser()
    (action,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    told = {choice.dest: choice.help or "" for choice in action._choices_actions}
    return {name: (told.get(name, ""), command) for name, command in action.choices.items()}


def usage(name: str, command: argparse.ArgumentParser) -> str:
    """`d2prune name ...` on one line, the same for every width of a terminal."""
    words = ["d2prune", name]
    for action in command._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        shown = action.metavar or action.dest.upper()
        shown = shown[0] if isinstance(shown, tuple) else shown
        if action.nargs == "+":
            shown = f"{shown}..."
        if action.option_strings:
            shown = action.option_strings[-1] + ("" if action.nargs == 0 else f" {shown}")
            shown = shown if action.required else f"[{shown}]"
        words.append(shown)
    return " ".join(words)


def rows(command: argparse.ArgumentParser) -> list[str]:
    """A table row for each argument."""
    found = []
    for action in command._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
        text = (action.help or "") % vars(action)
        found.append(f"| `{name}` | {text} |".replace("WORK_DIR|OUTPUT", "WORK_DIR or OUTPUT"))
    return found


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    for name, (told, command) in commands().items():
        lines += [f"## d2prune {name}", "", f"    {usage(name, command)}", ""]
        text = command.description or f"{told[:1].upper()}{told[1:]}."
        lines += [text, ""]
        if arguments := rows(command):
            lines += ["| | |", "|---|---|", *arguments, ""]
    return "\n".join(lines)


if __name__ == "__main__":
    (Path(__file__).parent / "reference" / "cli.md").write_text(page(), encoding="utf-8")
