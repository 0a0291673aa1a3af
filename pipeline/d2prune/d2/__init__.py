"""Exact D2 Pruning: fixed-point arithmetic, the two message-passing passes, partitions and budgets.

Bottom up:

    fixed_point.py       int64 arithmetic, the message between two nodes
    gamma.py             decays, as numbers or relative to the graph's distances
    precedence.py        which of two nodes is picked first
    waiting_lists.py     nodes that wait for a neighbour
    bucket_queue.py      the order in which the reverse pass visits nodes
    kernel.py            forward and reverse pass over rows of the graph
    whole_graph.py       both passes over a graph in memory, on several threads
    partition_layout.py  one partition's rows in local indices, with ghosts for remote neighbours
    ghosts.py            applying and collecting updates of ghosts
    partition.py         one partition: state, messages, checkpoints
    rounds.py            partitions in one process, exchanging messages until all nodes are final
    near_duplicates.py   the reverse pass with messages that finalise: deduplication
    budget.py            from selection scores to the samples kept
    api.py, coreset.py   the public functions
"""
