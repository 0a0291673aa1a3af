"""Looking into a finished run: which decision fell on a sample and why, in the terminal and in the browser."""
