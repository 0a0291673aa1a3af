"""Ray job: a whole run on the cluster it is submitted to.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- python jobs/filter.py --config run.yaml

Takes the options of `d2prune run`, and ends with its exit codes.
"""

import sys

from _stage import on_this_cluster

if __name__ == "__main__":
    sys.exit(on_this_cluster("run", *sys.argv[1:]))
