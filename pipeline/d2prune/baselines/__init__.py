"""What else coresets are chosen by: the methods that D2 is compared with, over the same embeddings, scores and graph.

    by_score.py       random, top_score, forward, moderate, ccs
    by_diversity.py   k_center, herding, facility_location, semdedup

Each gives a pick order, int64, of which `order.first` takes a coreset of any size (nested, as D2's
are), whole or group by group. Invariants: equals are taken in ascending position; seeds are
arguments; the same input gives the same order on every machine.
"""
