"""What is done to a slice before a network sees it, and undone on its maps."""
