"""Entry point of jobs on a Ray cluster: a command of `d2prune` as the driver of a job.

`python -m d2prune.job run --config run.yaml` is what `d2prune submit` starts; the scripts in `jobs/`
call `run_job`.
"""

import os
import sys

from d2prune.extras import import_optional

# Imported before Ray connects. In the driver of a job, loading torch after Ray, pyarrow, numba and
# s3fs ended the process with "Intel oneMKL FATAL ERROR: Cannot load libtorch_cpu.so" (Ray 2.60,
# torch 2.13 CPU); loading it first works.
import_optional("torch")

from d2prune.cli.main import main  # noqa: E402


def run_job(command: str, arguments: list[str], program: str) -> int:
    """Run a command on the cluster of the job, and return the exit code.

    Args:
        command: of `d2prune`.
        arguments: its options.
        program: name for messages.
    """
    # `ray job submit` sets RAY_ADDRESS for the driver. A driver started by hand on a head node
    # would otherwise start a local Ray. `ray.address` in the configuration takes precedence.
    os.environ.setdefault("RAY_ADDRESS", "auto")
    return main([command, *arguments], program)


if __name__ == "__main__":
    sys.exit(run_job(sys.argv[1], sys.argv[2:], "d2prune"))
