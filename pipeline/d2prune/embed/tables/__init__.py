"""The embed stage for pools that already hold embeddings."""
