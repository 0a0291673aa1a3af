"""Rounds of messages over a group of workers, each of which owns a partition of the stored graph.

group.py    the rounds, with recovery of lost members
member.py   one member: its partition and its checkpoint
rows.py     graph rows of a member's parts; the parts of each member
uids.py     uids of samples that other members own
"""
