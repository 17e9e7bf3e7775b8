"""DICOM series of CT slices."""
