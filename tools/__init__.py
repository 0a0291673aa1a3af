"""Scripts that made the bundled pool and model. They are not part of the package."""
