"""Rotate slices from different sources to the orientation of the training set.

Most training slices have one orientation, the spine on one side. A network does not recognise lungs and heart in
another one, and learns worse if it sees every slice in all eight flips and rotations. So each slice is rotated by
quarter turns to match the typical training slice best; its mirror image, left lung for right, matches equally well.
"""

from collections.abc import Iterable
from functools import reduce

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

SIDE = 16  # pixels a side: enough for lungs, heart and spine
UPSIDE_DOWN = -0.25  # a slice is upside down below this correlation of front-to-back differences; few errors


def thumbnail(image: np.ndarray) -> np.ndarray:
    """A uint8 slice ``(H, W)`` at 16 x 16 pixels, float64, of mean 0 and norm 1; orientation needs no more."""
    return _normalised(np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.LANCZOS), dtype=float))


def typical_slice(thumbnails: Iterable[np.ndarray]) -> list[list[float]]:
    """The mean of slices, by their thumbnails, and of their mirror images: 16 x 16, of mean 0 and norm 1."""
    mean = reduce(np.add, thumbnails)
    return _normalised(mean + np.flip(mean, mirror_axis(mean))).tolist()


def mirror_axis(typical: ArrayLike) -> int:
    """The axis from one lung to the other: -2 if one is above the other, -1 if they are side by side."""
    mean = np.array(typical)
    along, middle = slice(SIDE // 4, -SIDE // 4), slice(SIDE // 2 - 2, SIDE // 2 + 2)
    # Heart and spine, between the lungs, are bright; the line through both lungs is dark.
    return -1 if mean[along, middle].mean() > mean[middle, along].mean() else -2


def upright_turns(typical: ArrayLike) -> int:
    """The quarter turns of ``rot90`` that bring an upright slice, spine at the bottom, to this orientation."""
    mean, axis = np.array(typical), mirror_axis(typical)
    middle = slice(SIDE // 2 - 2, SIDE // 2 + 2)
    profile = mean[middle].mean(axis=0) if axis == -2 else mean[:, middle].mean(axis=1)
    # Between the lungs, the spine is brighter than the front, where the lungs meet.
    spine_last = profile[-SIDE // 3 :].mean() > profile[: SIDE // 3].mean()
    return {(-1, True): 0, (-2, True): 1, (-1, False): 2, (-2, False): 3}[axis, bool(spine_last)]


def likeness(typical: ArrayLike, small: np.ndarray) -> float:
    """The correlation of a slice, given its thumbnail, with the typical one, in [-1, 1], in the best orientation."""
    mean = np.array(typical)
    return float(max(np.vdot(mean, np.rot90(small, turns)) for turns in range(4)))


def turns_towards(typical: ArrayLike, small: np.ndarray) -> int:
    """The quarter turns of ``rot90`` that bring a slice, given its thumbnail, to the orientation of the typical one."""
    mean = np.array(typical)
    match = [np.vdot(mean, np.rot90(small, turns)) for turns in range(4)]
    turns = int(max(match[1], match[3]) > max(match[0], match[2]))  # aligns the axis through both lungs
    same_way = np.vdot(_ends(mean), _ends(np.rot90(small, turns)))
    return turns + 2 if same_way < (0 if turns else UPSIDE_DOWN) else turns


def _ends(small: np.ndarray) -> np.ndarray:
    """The part that changes under a rotation by 180 degrees: it distinguishes spine from breastbone."""
    return _normalised(small - np.rot90(small, 2))


def _normalised(image: np.ndarray) -> np.ndarray:
    centred = image - image.mean()
    return centred / max(np.linalg.norm(centred), 1e-9)
