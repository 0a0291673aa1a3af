"""kNN graph kernels: arrays in, an undirected graph out. No files, no workers."""
