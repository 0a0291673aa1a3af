"""Ray job: a whole run on the cluster it is submitted to.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- python jobs/filter.py --config run.yaml

Takes the options of `d2prune run`; uses this job's cluster unless `ray.address` says otherwise.
"""

import os
import sys

from pipeline.cli import main

if __name__ == "__main__":
    # Set by `ray job submit` for the driver; without it the driver would start a Ray of its own.
    os.environ.setdefault("RAY_ADDRESS", "auto")
    sys.exit(main(["run", *sys.argv[1:]]))
