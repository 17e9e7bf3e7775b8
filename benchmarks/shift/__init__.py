"""Scores on slices that differ from the training slices: ``python -m benchmarks.shift``."""
