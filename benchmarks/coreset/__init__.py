"""Research: which coreset trains the better classifier."""
