"""Ray job: filter a pool on the cluster the job is submitted to.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- python jobs/filter.py --config run.yaml

Takes the options of `d2prune run` and ends with its exit codes. With `--stop-after embed` (or
another stage) it stops after that stage; a later job continues from there.
"""

import sys

from d2prune.job import run_job

if __name__ == "__main__":
    sys.exit(run_job("run", sys.argv[1:], "jobs/filter.py"))
