"""Command lines: options, and their conversion to configs. Only scripts import this package."""
