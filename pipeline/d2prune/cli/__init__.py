"""The `d2prune` command: parse, call, print."""
