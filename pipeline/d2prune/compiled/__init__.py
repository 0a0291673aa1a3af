"""What compiled kernels share: the typed decorators, atomic memory operations and threads."""
