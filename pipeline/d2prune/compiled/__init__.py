"""What compiled kernels share: the typed decorator, atomic memory operations and threads."""
