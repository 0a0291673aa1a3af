"""The steps that build a graph from the one before; `sequence.py` lists them.

Terms: a part is *added* or *kept*; a kept row is *bereft* if one of its stored nearest rows was
removed. Added and bereft rows are *seekers*: they are compared with all rows that they meet. The other
kept rows are compared with the added rows only. A *share* is a run of consecutive parts, which one
unit holds.

Invariant: the result is that of a full build with the same quantiser, bit for bit
(docs/algorithm.md, "Increments of the graph").
"""
