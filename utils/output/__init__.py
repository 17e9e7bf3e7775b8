"""Output for people: console, result folders, pictures."""
