"""Exact D2 Pruning: fixed-point arithmetic, the two passes, partitions and the budget."""
