"""The configuration: its model, configuration files and model names."""
