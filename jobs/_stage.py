"""Connects a job to the cluster it was submitted to."""

import os
import sys

# Import torch before Ray connects. In a job driver, importing it after Ray, pyarrow, numba and s3fs ended the process
# with "Intel oneMKL FATAL ERROR: Cannot load libtorch_cpu.so" (Ray 2.60, torch 2.13 CPU).
import torch  # noqa: F401

from d2prune.cli.main import main


def run_up_to(stage: str) -> int:
    """Run every unfinished stage up to `stage` with the options of `d2prune run`. Returns the exit code."""
    return on_this_cluster("run", *sys.argv[1:], "--stop-after", stage)


def on_this_cluster(*arguments: str) -> int:
    """Run the `d2prune` command with these arguments on the job's cluster. Returns the exit code."""
    # `ray job submit` sets RAY_ADDRESS for the driver. A driver started manually on a head node would otherwise start
    # a local Ray. `ray.address` in the configuration takes precedence.
    os.environ.setdefault("RAY_ADDRESS", "auto")
    return main(arguments)
