"""`d2prune plan`: time, memory and cost of a run, estimated before it starts."""
