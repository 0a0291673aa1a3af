"""`d2prune demo`, and the S3 server that it, the tests and the benchmarks run."""
