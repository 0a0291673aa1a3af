"""Commands to get started: `init`, `models`, `completion` and `demo`."""

import argparse
import shlex
from typing import Any

from d2prune.cli.locations import location
from d2prune.console import print_line


def add_commands(commands: Any) -> None:
    """Add the commands to the parser."""
    init = commands.add_parser(
        "init",
        help="write a configuration for a folder",
        description="Look at what a folder holds (tars, DataComp's metadata, clip-retrieval, tables of "
        "embeddings) and write a commented configuration for it.",
    )
    init.add_argument(
        "folder",
        nargs="?",
        type=location,
        default=".",
        metavar="FOLDER",
        help="folder of the pool, at any URL that can be listed; default: the current folder",
    )
    init.add_argument(
        "--file",
        type=location,
        default="run.yaml",
        metavar="FILE",
        help="file to write, which must not exist; default: %(default)s",
    )
    init.set_defaults(command=_init)

    models = commands.add_parser(
        "models",
        help="list the models that open_clip can load by name",
        description="List the models that --model and embed.models accept, one MODEL/TAG per line.",
    )
    models.add_argument(
        "pattern",
        nargs="?",
        metavar="PATTERN",
        help="part of a name, or a pattern such as 'ViT-L*openai'; upper and lower case are equal; default: "
        "all",
    )
    models.set_defaults(command=_models)

    completion = commands.add_parser(
        "completion",
        help="print a completion script for a shell",
        description="Print a script that completes commands and options in a shell. For bash: d2prune "
        "completion bash > ~/.local/share/bash-completion/completions/d2prune.",
    )
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell")
    completion.set_defaults(command=_completion)

    demo = commands.add_parser(
        "demo",
        help="filter the bundled pool",
        description="Filter the bundled pool of clip art, from S3 to S3: starts an S3 server on "
        "loopback and stops it at the end.",
    )
    demo.add_argument(
        "--folder",
        type=location,
        default=".demo",
        metavar="FOLDER",
        help="folder for the buckets and the report; default: %(default)s",
    )
    demo.set_defaults(command=_demo)


def _init(arguments: argparse.Namespace) -> int:
    from d2prune.scaffold import write_config

    found, text = write_config(arguments.folder, arguments.file)
    for line in text.rstrip().splitlines():
        print_line(line)
    print_line()
    print_line(f"Found {found}; wrote {arguments.file}.")
    print_line(f"Next:  {shlex.join(['d2prune', 'run', '--config', arguments.file])}")
    return 0


def _models(arguments: argparse.Namespace) -> int:
    from d2prune.embed.model.sources import print_models

    print_models(arguments.pattern)
    return 0


def _completion(arguments: argparse.Namespace) -> int:
    import shtab

    # Here, because the parser is built from this module.
    from d2prune.cli.parser import build_parser

    for line in shtab.complete(build_parser(), shell=arguments.shell).splitlines():
        print_line(line)
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from d2prune.demo.demo import run_demo

    return run_demo(arguments.folder)
