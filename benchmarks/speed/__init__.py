"""Time and memory against the published computation: ``python -m benchmarks.speed``."""
