"""Tests of d2prune."""

import os

# Set before anything imports numpy or torch. Threads that wait for one another spin: on busy cores,
# training took five times the CPU that it takes with one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")
