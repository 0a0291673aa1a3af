"""Images and captions -> embeddings: decoding, the CLIP encoder and the stage that runs them over a pool."""
