"""The input of a run: which shards there are, the samples inside them, and why samples are rejected."""
