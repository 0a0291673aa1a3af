r"""Ray job: copy the samples listed in a subset file into new tars.

ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- python jobs/reshard.py --workers 64 \
    --subset s3://b/subset.npy --input 's3://pool/{00000000..00001279}.tar' --output s3://b/out \
    --work-dir s3://b/scratch

Takes the options of `d2prune reshard` and ends with its exit codes. With `--workers` above 1 the
workers run on the cluster the job is submitted to.
"""

import sys

from d2prune.job import run_job

if __name__ == "__main__":
    sys.exit(run_job("reshard", sys.argv[1:], "jobs/reshard.py"))
