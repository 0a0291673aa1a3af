"""The rank stage: one selection score per sample, valid for every budget."""
