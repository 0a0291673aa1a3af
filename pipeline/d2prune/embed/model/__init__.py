"""CLIP models: names, loading, encoding."""
