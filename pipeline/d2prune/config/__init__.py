"""What a user can configure: the model, configuration files and model names."""
