"""d2prune: exact, distributed D2 Pruning (arXiv 2310.07931) for image-text pools."""

__version__ = "0.1.0"
