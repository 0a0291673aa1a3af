"""Reading pools: which shards there are, and the samples inside a WebDataset tar."""
