"""From checkpoints and slices or scans to maps of lesions."""
