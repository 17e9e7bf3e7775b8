"""Slices in and out: decoding, augmentation, and the synthetic phantom."""
