"""Inspecting a finished run: why a sample was kept or dropped, in the terminal and in the browser."""
