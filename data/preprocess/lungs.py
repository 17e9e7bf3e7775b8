"""Find body and lungs by thresholds: roughly, but without a model; in scans and in slices of gray levels.

SciPy and scikit-image are imported where they are used: together they take most of a second.
"""

import numpy as np
from PIL import Image

TISSUE, AIR = -500, -320  # HU: a body is above, lungs are below, lesions in them between
LEAST_LUNG = 0.002  # of the volume, for an air space to count as lung
SIDE = 128  # pixels a side at which a slice is searched
FEW = 0.1  # of the body: less is dark if full of lesions, in a slice with much air around the body
LEAST_CONTRAST = 0.3  # of lung to tissue, as a share of that of air; fat has about 0.1
NEAR = 0.06  # of the side: closer to a border, lungs were cropped to; consolidated ones leave a wider margin at one
CROPPED_SIDES = 2  # that are near, at least, in a slice that is cropped to the lungs
NOISE = 5  # pixels of that, side of the median filter against it
LEAST_SHARE = 0.1  # of the largest air space of a slice, for another one to count as lung


def find_body(hu: np.ndarray) -> np.ndarray:
    """The patient without the table, bool ``(S, H, W)``: the largest connected tissue, filled slice by slice."""
    from scipy import ndimage

    body = _largest(ndimage.binary_opening(hu > TISSUE, structure=np.ones((1, 3, 3))))
    return np.stack([ndimage.binary_fill_holes(section) for section in body])


def find_lungs(hu: np.ndarray, body: np.ndarray) -> np.ndarray:
    """The air spaces of the body, bool ``(S, H, W)``, filled slice by slice so that most lesions in them are kept."""
    from scipy import ndimage

    labels, count = ndimage.label((hu < AIR) & body)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    large = sizes >= LEAST_LUNG * hu.size
    large[0] = False
    closing = np.ones((1, 5, 5))
    lungs = ndimage.binary_closing(large[labels], structure=closing)
    return np.stack([ndimage.binary_fill_holes(section) for section in lungs])


def find_in_slice(gray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The body, filled, and the air spaces in it, of a slice uint8 ``(H, W)``; both bool ``(128, 128)``.

    Needs no Hounsfield units: what is darker than Otsu's threshold is air or lung. Air beyond the body touches a corner
    of the slice; the lungs of a slice that is cropped to them touch only its sides.
    """
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    small = np.asarray(Image.fromarray(gray).resize((SIDE, SIDE), Image.Resampling.BOX))
    small = ndimage.median_filter(small, NOISE)
    dark = small <= threshold_otsu(small) if small.min() < small.max() else np.zeros(small.shape, bool)
    outside = air_in_corners(dark)
    tissue = ndimage.binary_opening(~outside, iterations=2)  # separates body and table
    body = ndimage.binary_fill_holes(_largest(tissue))
    if outside.any() and np.count_nonzero(dark & body) < FEW * np.count_nonzero(body):
        dark = _darker_part(small, body, air=np.median(small[~body]))
    return body, largest_spaces(dark & body)


def air_in_corners(dark: np.ndarray) -> np.ndarray:
    """The dark parts of a slice, bool ``(H, W)``, that reach one of its corners."""
    from scipy import ndimage

    parts, _ = ndimage.label(dark)
    corners = {parts[0, 0], parts[0, -1], parts[-1, 0], parts[-1, -1]} - {0}
    return np.isin(parts, list(corners))


def largest_spaces(air: np.ndarray) -> np.ndarray:
    """Without air in the bowel, the stomach or small airways: components of at least a tenth of the largest one."""
    from scipy import ndimage

    spaces, count = ndimage.label(air)
    sizes = np.bincount(spaces.ravel(), minlength=count + 1)
    sizes[0] = 0
    return (sizes >= max(1, LEAST_SHARE * sizes.max()))[spaces]


def _darker_part(gray: np.ndarray, body: np.ndarray, *, air: float) -> np.ndarray:
    """Where a body is lung, by Otsu's threshold of its own gray levels: with much air around it, that of the slice lies
    between air and all of the body. Empty if the darker part is nearer to tissue than to ``air``, as fat is."""
    from skimage.filters import threshold_otsu

    inside = gray[body]
    dark = (gray <= threshold_otsu(inside)) if inside.min() < inside.max() else np.zeros(gray.shape, bool)
    if not (dark & body).any():
        return dark
    lung, tissue = np.median(gray[dark & body]), np.median(gray[~dark & body])
    return dark if tissue - lung > LEAST_CONTRAST * (tissue - air) else np.zeros(gray.shape, bool)


def touches_borders(lungs: np.ndarray) -> bool:
    """Whether a slice is cropped to its lungs, bool ``(128, 128)``: at two sides or more, they are near the border."""
    if not lungs.any():
        return False
    spans = [np.flatnonzero(lungs.any(axis=axis)) for axis in (1, 0)]
    margins = [margin for span in spans for margin in (span[0], SIDE - 1 - span[-1])]
    return bool(sum(margin <= NEAR * SIDE for margin in margins) >= CROPPED_SIDES)


def close_lungs(lungs: np.ndarray) -> np.ndarray:
    """The air spaces of a slice, bool ``(H, W)``, with the lesions in them: the convex hull of each."""
    from skimage.morphology import convex_hull_object

    return convex_hull_object(lungs)


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
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()
