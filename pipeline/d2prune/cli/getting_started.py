"""Commands to get started: `models` and `demo`."""

import argparse
from typing import Any


def add_commands(commands: Any) -> None:
    """Add the commands to the parser."""
    models = commands.add_parser(
        "models",
        help="list the models that open_clip can load by name",
        description="List the values that embed.model and embed.pretrained accept, one pair per line.",
    )
    models.set_defaults(command=_models)

    demo = commands.add_parser(
        "demo",
        help="filter the bundled pool",
        description="Filter the bundled pool of clip art, from S3 to S3: starts an S3 server on "
        "loopback and stops it at the end.",
    )
    demo.add_argument(
        "--folder",
        default=".demo",
        metavar="FOLDER",
        help="folder for the buckets and the report; default: %(default)s",
    )
    demo.set_defaults(command=_demo)


def _models(_: argparse.Namespace) -> int:
    from d2prune.embed.model.sources import print_models

    print_models()
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from d2prune.demo.demo import run_demo

    return run_demo(arguments.folder)
