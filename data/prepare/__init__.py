"""Public data sets and scans made into the folders of slices that the training scripts read."""
