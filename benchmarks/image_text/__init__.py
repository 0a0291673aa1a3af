"""Research: which subset of a noisy pool trains the better CLIP."""
