"""Baselines: the methods that D2 is compared with, on the same embeddings, scores and graph.

    by_score.py       random, top_score, forward, moderate, ccs
    by_diversity.py   k_center, herding, facility_location, info_max, semdedup

Each returns a pick order, int64. `order.first` takes a coreset of any size from it, in the whole pool
or group by group, so the coresets of one order are nested, as D2's are. Invariants: ties go to the
lower position; seeds are arguments; the same input gives the same order on every machine.
"""
