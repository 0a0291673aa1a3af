"""Compare fractions, neighbourhoods and gammas from the artifacts of one run."""
