"""Difficulty scores: what makes a sample wanted before the graph has its say. Higher = more wanted, always."""
