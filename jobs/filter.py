"""Ray job: run `d2prune run` on the cluster the job is submitted to.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- python jobs/filter.py --config run.yaml

Takes the options of `d2prune run` and returns its exit codes. With `--stop-after embed` (or `graph`, `rank`, `select`,
`write`) it stops after that stage; a later job continues from there.
"""

import sys

from _stage import on_this_cluster

if __name__ == "__main__":
    sys.exit(on_this_cluster("run", *sys.argv[1:]))
