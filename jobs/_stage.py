"""What the jobs of single stages share: a run that stops after the stage, on the cluster it was submitted to."""

import os
import sys

from pipeline.cli import main


def run_up_to(stage: str) -> int:
    """Run every unfinished stage up to `stage`, with the options of `d2prune run`; returns the exit code."""
    return on_this_cluster("run", *sys.argv[1:], "--stop-after", stage)


def on_this_cluster(*arguments: str) -> int:
    """The `d2prune` command with these arguments; workers are those of the job's cluster."""
    # `ray job submit` sets it for the driver; started by hand on a head node, the driver would else start a Ray of its
    # own. A cluster named by `ray.address` still has precedence.
    os.environ.setdefault("RAY_ADDRESS", "auto")
    return main(arguments)
