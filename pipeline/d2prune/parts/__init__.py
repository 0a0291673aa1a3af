"""The pool as row-aligned parts: one part per input shard, rows in canonical order."""
