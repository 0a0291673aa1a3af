"""The dedup stage: drops exact copies and near-duplicates before the ranking. It runs only if asked for.

params.py   what decides which samples are dropped
job.py      what the workers share
copies.py   exact copies, found over all parts by the hash of their image
member.py   one worker: near-duplicates of its partition, and the tables of its parts
driver.py   runs them; stage.py: the stage
"""
