"""Gray levels of slices from different sources, brought together."""

import numpy as np

SOFT_TISSUE = 210  # its usual gray level in a lung window
DARKEST_TISSUE = 30  # below, the slice is not windowed at all; scaled, its few levels would hide that


def align_grays(gray: np.ndarray) -> np.ndarray:
    """Scale a slice so that its soft tissue has the same gray level as in all others, uint8 ``(H, W)``.

    Otsu's threshold separates soft tissue from lung and air; its gray level is the median of the brighter class. A
    slice stored with the full range of Hounsfield units then resembles one in a lung window. A nearly black slice
    stays as it is, so that the user notices.
    """
    from skimage.filters import threshold_otsu  # here, as it takes half a second

    tissue = np.median(gray[gray > threshold_otsu(gray)]) if gray.min() < gray.max() else SOFT_TISSUE
    if tissue < DARKEST_TISSUE:
        return gray
    return np.clip(np.round(gray * (SOFT_TISSUE / tissue)), 0, 255).astype(np.uint8)
