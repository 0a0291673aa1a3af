"""The rescore stage: scores of a pair that depend on the rest of the pool. It runs only if a score is used.

params.py      what decides the scores
job.py         what the workers share, and the rows of the references
worker.py      draws reference rows from a part; scores a part
target.py      reading the target set
stage.py       the stage
"""
