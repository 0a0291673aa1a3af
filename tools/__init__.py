"""Scripts that made the bundled pool and model: `make_pool` and `train_model`. Not part of the package."""
