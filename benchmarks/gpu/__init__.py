"""Everything that needs a GPU, by one command within minutes: tests, trainings, masks, speed, cross-validation."""
