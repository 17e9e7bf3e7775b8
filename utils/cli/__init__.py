"""Command lines: options, and how they become configs. Nothing but scripts imports this package."""
