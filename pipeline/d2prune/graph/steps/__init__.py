"""The steps that build a graph, as units that exchange rows through files; `sequence.py` lists them.

Terms: `part_rows.py` defines distinct rows and members, the glossary of `d2prune.knn` lists, probes
and visits. A vector that occurs many times is a member of its list once, and at home there once per
part.

Invariant: the result is that of `knn.in_memory.knn_graph_report` on the whole pool, bit for bit,
for any number of parts, buckets, partitions and batches, and any order of the units.
"""
