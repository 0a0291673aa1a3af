"""Options that make a configuration: `--config`, `--set`, and flags for the keys that every run needs."""

import argparse
import shlex
from typing import TYPE_CHECKING, Any

from d2prune.cli import numbers
from d2prune.cli.locations import location

if TYPE_CHECKING:
    from d2prune.config.file import Override
    from d2prune.config.model import RunConfig

# Flag, key, metavar, help. A flag is the same as --set KEY=VALUE, without YAML.
_FLAGS = (
    ("--work-dir", "work_dir", "URL", "folder of intermediate artifacts, the same as --set work_dir=URL"),
    ("--output", "output", "URL", "folder of the filtered shards, the same as --set output=URL"),
)


def add_config(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Add the options to a command."""
    parser.add_argument(
        "pool",
        nargs="*",
        type=location,
        metavar="POOL",
        help="input tars or tables, the same as the key input: folders, globs or names with braces",
    )
    parser.add_argument(
        "--config",
        type=location,
        metavar="FILE",
        help=f"{help_text}, at any URL; `d2prune init` writes one. Not needed if flags and --set give "
        "every key",
    )
    for flag, _, metavar, text in _FLAGS:
        parser.add_argument(flag, type=location, metavar=metavar, help=text)
    parser.add_argument(
        "--model",
        type=location,
        metavar="MODEL",
        help="CLIP model, such as ViT-B-32/openai, hf-hub:ORG/NAME or demo: the keys embed.model and "
        "embed.pretrained",
    )
    parser.add_argument(
        "--fraction",
        type=numbers.number(0, 1, above=True),
        metavar="X",
        help="share of the embedded samples to keep, the same as --set select.fraction=X",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key, such as select.fraction=0.3; may be repeated",
    )


def load_config(arguments: argparse.Namespace, needs_budget: bool = True) -> "RunConfig":
    """Read the configuration that the options describe.

    Args:
        arguments: parsed, of a command with `add_config`.
        needs_budget: whether the command selects samples; otherwise `select` may be missing.

    Raises:
        UserError: one line with the file, flag or `--set`, and what was expected.
    """
    from d2prune.config.model import RunConfig

    overrides = [*_read_flags(arguments), *arguments.set]
    return RunConfig.load(arguments.config, overrides, needs_budget=needs_budget)


def _read_flags(arguments: argparse.Namespace) -> "list[Override]":
    from d2prune.config.file import Override
    from d2prune.config.model_names import split_model

    found = []

    def add(option: str, text: str, key: str, value: Any) -> None:
        found.append(Override(text, tuple(key.split(".")), value, option))

    if arguments.pool:
        add("POOL", " ".join(arguments.pool), "input", list(arguments.pool))
    for flag, key, _, _ in _FLAGS:
        value = getattr(arguments, key)
        if value is not None:
            add(flag, value, key, value)
    if arguments.model is not None:
        model, pretrained = split_model(arguments.model)
        add("--model", arguments.model, "embed.model", model)
        add("--model", arguments.model, "embed.pretrained", pretrained)
    if arguments.fraction is not None:
        add("--fraction", f"{arguments.fraction:g}", "select.fraction", arguments.fraction)
    return found


def restate(arguments: argparse.Namespace, command: str) -> str:
    """Return a command with the same configuration, for the user to copy."""
    words = ["d2prune", command, *arguments.pool]
    if arguments.config is not None:
        words += ["--config", arguments.config]
    for option in ("work_dir", "output", "model", "fraction"):
        value = getattr(arguments, option)
        if value is not None:
            words += [f"--{option.replace('_', '-')}", str(value)]
    for override in arguments.set:
        key, equals, value = override.partition("=")
        words += ["--set", f"{key}{equals}{location(value)}"]
    return shlex.join(words)
