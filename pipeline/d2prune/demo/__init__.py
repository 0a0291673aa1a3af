"""The `d2prune demo` command and the S3 server it runs."""
