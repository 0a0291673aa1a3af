"""Compares fractions, neighbourhoods and gammas using the artifacts of one run."""
