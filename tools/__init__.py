"""Scripts that made the bundled pool and model. Not part of the package."""
