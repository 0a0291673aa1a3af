"""CLIP models: finding, loading and running them."""
