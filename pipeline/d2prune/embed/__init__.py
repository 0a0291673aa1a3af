"""The embed stage: turns images and captions, or tables of embeddings, into the embed artifact."""
