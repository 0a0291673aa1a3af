"""The rank stage: one selection score per sample, valid for every budget.

stage.py           parameters of a run, and the stage's record
params.py          what decides a ranking
ranking.py         the driver: divide the parts among partitions, run them, collect receipts
job.py, member.py  what all workers share; one worker, which owns one partition
methods.py         methods other than d2; features.py: the feature rows that some of them read
"""
