"""The kNN graph: its container, and how it is built and measured."""
