"""Verification: re-read an output folder and report every fault."""
