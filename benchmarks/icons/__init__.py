"""Research: which subset of a pool of icons and their names trains the better CLIP."""
