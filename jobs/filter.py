"""Ray job: filter a pool on the cluster the job is submitted to.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- python jobs/filter.py --config run.yaml

Takes the options of `d2prune run` and ends with its exit codes. With `--stop-after embed` (or
another stage) it stops after that stage; a later job continues from there.
"""

import os
import sys

# Imported before Ray connects. In the driver of a job, loading torch after Ray, pyarrow, numba and
# s3fs ended the process with "Intel oneMKL FATAL ERROR: Cannot load libtorch_cpu.so" (Ray 2.60,
# torch 2.13 CPU); loading it first works.
import torch  # noqa: F401

from d2prune.cli.main import main

if __name__ == "__main__":
    # `ray job submit` sets RAY_ADDRESS for the driver. A driver started by hand on a head node
    # would otherwise start a local Ray. `ray.address` in the configuration takes precedence.
    os.environ.setdefault("RAY_ADDRESS", "auto")
    sys.exit(main(["run", *sys.argv[1:]]))
