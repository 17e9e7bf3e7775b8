"""Preprocessing of slices for a network, and its inverse for maps."""
