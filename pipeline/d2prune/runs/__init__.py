"""Runs: the list of stages, the driver that runs them, what a run will make, and the finished runs of a work_dir."""
