"""Find body and lungs in a CT scan by thresholds: roughly, but without a model."""

import numpy as np
from scipy import ndimage

TISSUE, AIR = -500, -320  # HU: a body is above, lungs are below, lesions in them between
LEAST_LUNG = 0.002  # of the volume, for an air space to count as lung


def find_body(hu: np.ndarray) -> np.ndarray:
    """The patient without the table, bool ``(S, H, W)``: the largest connected tissue, filled slice by slice."""
    body = _largest(ndimage.binary_opening(hu > TISSUE, structure=np.ones((1, 3, 3))))
    return np.stack([ndimage.binary_fill_holes(section) for section in body])


def find_lungs(hu: np.ndarray, body: np.ndarray) -> np.ndarray:
    """The air spaces of the body, bool ``(S, H, W)``, filled slice by slice so that most lesions in them are kept."""
    labels, count = ndimage.label((hu < AIR) & body)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    large = sizes >= LEAST_LUNG * hu.size
    large[0] = False
    closing = np.ones((1, 5, 5))
    lungs = ndimage.binary_closing(large[labels], structure=closing)
    return np.stack([ndimage.binary_fill_holes(section) for section in lungs])


def box(mask: np.ndarray, *, margin: int = 4) -> tuple[slice, slice]:
    """Rows and columns that hold a mask ``(S, H, W)`` in all slices, with a margin in pixels; all if it is empty."""
    if not mask.any():
        return slice(None), slice(None)
    spans = []
    for axis, size in ((2, mask.shape[1]), (1, mask.shape[2])):
        inside = np.nonzero(mask.any(axis=(0, axis)))[0]
        spans.append(slice(max(0, inside[0] - margin), min(size, inside[-1] + 1 + margin)))
    return spans[0], spans[1]


def _largest(mask: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()
