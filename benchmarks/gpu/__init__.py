"""One command for all that needs a GPU, within minutes: tests, training, masks, speed, cross-validation."""
