"""Reading tables of embeddings: parquet, npz and npy."""
