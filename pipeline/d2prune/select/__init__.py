"""The select stage: apply the budget to the ranking."""
