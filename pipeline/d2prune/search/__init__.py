"""Search of a finished run by meaning: by text, by image, like a sample, near a target set."""
