"""Time, memory and cost of a run, estimated before it starts."""
