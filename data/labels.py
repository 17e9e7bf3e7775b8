"""Lesion classes, and how masks store them."""

IGNORE = 255  # class index of pixels that neither the loss nor a metric counts


IGNORED_GRAY = 128  # how such a pixel is stored in a pseudo mask, between background (0) and lesion (255)
