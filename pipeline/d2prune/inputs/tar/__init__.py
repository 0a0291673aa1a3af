"""Reading and writing WebDataset tars."""
