"""The select stage: apply the budget to the ranking, and record a decision on every sample."""
