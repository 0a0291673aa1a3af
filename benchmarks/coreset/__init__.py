"""Research: which coreset trains the better classifier (`python -m benchmarks.coreset`)."""
