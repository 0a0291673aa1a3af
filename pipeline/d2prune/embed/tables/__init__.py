"""Import of pools that already have embeddings."""
