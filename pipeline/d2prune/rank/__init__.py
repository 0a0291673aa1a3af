"""The rank stage: one selection score per sample, valid for every budget.

stage.py               parameters of a run, and the stage's record
params.py              what decides a ranking
ranking.py             the driver: divide the parts among partitions, run them, collect receipts
distributed_rounds.py  rounds of messages over a group of workers, with recovery of lost ones
job.py, member.py      what all workers share; one worker, which owns one partition
inputs.py              what a worker reads
suppressors.py         uids of suppressors, requested from the partitions that own them
methods.py             methods other than d2
"""
