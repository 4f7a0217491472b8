"""Figures, tables and a methods paragraph for a paper, from a `Comparison`."""
