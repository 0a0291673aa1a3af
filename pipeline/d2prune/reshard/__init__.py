"""Stand-alone resharding: a subset file and input tars in, an output folder out."""
