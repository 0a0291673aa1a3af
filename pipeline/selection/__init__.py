"""Exact D2: the kernel, its partitions, the budget, and the in-memory API."""
