"""Research harness: which coreset trains the better classifier (`python -m benchmarks.coreset`)."""
