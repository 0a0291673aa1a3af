"""Ray job: a run up to and with `select`: the budget: who is kept.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- python jobs/selection.py
--config run.yaml

Takes the options of `d2prune run`. What earlier jobs finished is not done again.
"""

import sys

from _stage import run_up_to

if __name__ == "__main__":
    sys.exit(run_up_to("select"))
