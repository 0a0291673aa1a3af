"""From decisions to shards that train as they are: subset file, tars with the samples' own bytes, books, checks."""
