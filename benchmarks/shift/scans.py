"""Phantom scans with the lesions of real slices in them."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from skimage.filters import threshold_otsu

from data.phantom.volumes import draw_volume
from data.preprocess.lungs import box, find_body, find_lungs

SIDE, DEPTH, THICK = 192, 30, 3  # pixels, slices of a scan, slices with the same lesions
LUNG_HU, TISSUE_HU = -850, 40


def scan_with_lesions(
    lesions: Sequence[tuple[np.ndarray, np.ndarray]], rng: np.random.Generator, *, upright: int
) -> tuple[np.ndarray, np.ndarray]:
    """A phantom scan in HU ``(S, H, W)``, upright, and its lesions, bool.

    lesions: slices uint8 that are cropped to the lungs, and their masks, bool; each is pasted into the lungs of
    three slices. upright: the quarter turns of ``rot90`` that bring their spine to the bottom.
    """
    hu, _ = draw_volume(rng, SIDE, DEPTH, with_lesions=False)
    hu = hu.astype(np.float32)
    lungs = find_lungs(hu, find_body(hu))
    truth = np.zeros(hu.shape, bool)
    levels = np.linspace(0.15, 0.75, len(lesions)) * DEPTH
    for level, (gray, mask) in zip(levels.astype(int), lesions, strict=True):
        gray, mask = np.rot90(gray, upright), np.rot90(mask, upright)
        bright = gray > threshold_otsu(gray)
        normal = gray[~bright & ~mask]
        low, high = np.median(normal if normal.size else gray[~bright]), np.median(gray[bright])
        values = LUNG_HU + (gray - low) / max(1.0, high - low) * (TISSUE_HU - LUNG_HU)
        for index in range(level, level + THICK):
            rows, columns = box(lungs[index : index + 1], margin=0)
            size = (columns.stop - columns.start, rows.stop - rows.start)
            pasted = np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
            lesion = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
            lesion = lesion & lungs[index, rows, columns]
            hu[index, rows, columns] = np.where(lesion, pasted, hu[index, rows, columns])
            truth[index, rows, columns] = lesion
    return hu, truth
