"""The graph stage: builds the kNN graph of the pool, in one worker or in steps over many."""
