"""Resharding: copy the samples named by a subset file from input tars to numbered output tars."""
