"""What the jobs of single stages share: a run that stops after the stage, on the cluster it was submitted to."""

import os
import sys

# Before Ray connects: in the driver of a job, torch loaded after Ray, pyarrow, numba and s3fs ended
# the process with "Intel oneMKL FATAL ERROR: Cannot load libtorch_cpu.so" (Ray 2.60, torch 2.13
# CPU); loaded first it works.
import torch  # noqa: F401

from d2prune.cli.main import main


def run_up_to(stage: str) -> int:
    """Run every unfinished stage up to `stage`, with the options of `d2prune run`; returns the exit code."""
    return on_this_cluster("run", *sys.argv[1:], "--stop-after", stage)


def on_this_cluster(*arguments: str) -> int:
    """The `d2prune` command with these arguments; workers are those of the job's cluster."""
    # `ray job submit` sets it for the driver; started by hand on a head node, the driver would else
    # start a Ray of its own. A cluster named by `ray.address` still has precedence.
    os.environ.setdefault("RAY_ADDRESS", "auto")
    return main(arguments)
