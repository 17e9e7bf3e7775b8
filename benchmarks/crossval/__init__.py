"""Cross-validation of training settings: ``python -m benchmarks.crossval``."""
