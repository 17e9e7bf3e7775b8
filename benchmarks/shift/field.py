"""Put a slice that is cropped to the lungs into the whole field of view of a scanner: body wall, air and table."""

from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.filters import threshold_otsu

from data.preprocess.lungs import air_in_corners

SIDE = 400  # pixels of the field of view


class Field(NamedTuple):
    """A slice in a larger field of view, uint8, its mask, bool, and the rectangle of the original slice, bool."""

    image: np.ndarray
    mask: np.ndarray
    inside: np.ndarray


def widen(gray: np.ndarray, mask: np.ndarray, rng: np.random.Generator, *, upright: int) -> Field:
    """Draw a random chest around a slice uint8 ``(H, W)`` and its mask bool ``(H, W)``.

    upright: the quarter turns of ``rot90`` that bring the spine to the bottom. The slice takes 40 to 75 % of the side.
    The whole is shifted, rotated by quarters and up to 8 degrees, and mirrored.
    """
    gray, mask = np.rot90(gray, upright), np.rot90(mask, upright)
    share = rng.uniform(0.40, 0.75)
    width = round(share * SIDE)
    height = round(min(width * gray.shape[0] / gray.shape[1], 0.8 * SIDE))
    slice_ = np.asarray(Image.fromarray(gray).resize((width, height), Image.Resampling.LANCZOS))
    lesion = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
    bright = threshold_otsu(gray)
    tissue, air = np.median(gray[gray > bright]), np.percentile(gray, 1) * rng.uniform(0, 1)

    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2.0
    y, x = y / (height / 2), x / (width / 2)  # the slice spans [-1, 1]
    wall = rng.uniform(1.12, 1.3, 2)
    body = (x / wall[0]) ** 4 + (y / wall[1]) ** 4 < 1
    fat = (x / (wall[0] - 0.07)) ** 4 + (y / (wall[1] - 0.07)) ** 4 > 1
    grain = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 1.2) * rng.uniform(5, 20)
    image = np.where(body, np.where(fat, 0.88, 1) * tissue, air)
    bed = np.abs(y - wall[1] - rng.uniform(0.03, 0.1) - 0.06 * x**2) < 0.02
    image = np.where(bed & (np.abs(x) < 1.3) & ~body, 0.6 * tissue, image) + grain * np.where(body, 1, 0.3)

    # Corners of a cropped slice can show air beyond the body; here they lie in it.
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    place = (slice(top, top + height), slice(left, left + width))
    image[place] = np.where(air_in_corners(slice_ <= bright) & ~lesion, image[place], slice_)
    whole, inside = np.zeros((2, SIDE, SIDE), bool)
    whole[place], inside[place] = lesion, True
    return Field(*_moved([image.clip(0, 255), whole, inside], air, rng))


def _moved(planes: list[np.ndarray], air: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Rotate, shift and mirror planes together; the first is an image, the others are masks."""
    angle, shift = rng.uniform(-8, 8), rng.uniform(-0.06, 0.06, 2) * SIDE
    quarters, mirrored = rng.integers(4), rng.random() < 0.5
    moved = []
    for order, plane in enumerate(planes):
        image = Image.fromarray(np.round(plane * (255 if order else 1)).astype(np.uint8))
        resample = Image.Resampling.NEAREST if order else Image.Resampling.BILINEAR
        image = image.rotate(angle, resample, translate=tuple(shift), fillcolor=0 if order else round(air))
        turned = np.rot90(np.asarray(image), int(quarters))
        turned = np.flip(turned, 1) if mirrored else turned
        moved.append(turned > 127 if order else turned.copy())
    return moved
