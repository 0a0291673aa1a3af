"""Tests of d2prune."""

import os

# Set before anything imports numpy or torch. Threads that wait for one another spin, which on busy cores took five
# times the CPU of one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")
