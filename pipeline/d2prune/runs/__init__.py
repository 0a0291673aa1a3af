"""Runs: the stages, the plan, the driver, and the list of finished runs with its pruning."""
