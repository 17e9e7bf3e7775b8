"""Slices from different sources turned alike: as those lie that a network was trained on.

Training slices mostly lie alike, the spine on one side. What is learned there of lungs and heart is lost on a slice
that lies otherwise, and learned worse if every slice is shown in all eight flips and turns. So a slice is turned, by
quarters, until it is most like the typical training slice; mirrored ones, left lung for right, count as alike.
"""

from collections.abc import Iterable
from functools import reduce

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

SIDE = 16  # pixels: enough for lungs, heart and spine
UPSIDE_DOWN = -0.25  # correlation of front-to-back differences below which a slice is: hardly any is turned by mistake


def thumbnail(image: np.ndarray) -> np.ndarray:
    """All that orientation is told by: a uint8 slice ``(H, W)`` at 16 x 16 pixels, float64, of mean 0 and norm 1."""
    return _normalised(np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.LANCZOS), dtype=float))


def typical_slice(thumbnails: Iterable[np.ndarray]) -> list[list[float]]:
    """The mean of slices, by their thumbnails, and of their mirror images: 16 x 16, of mean 0 and norm 1."""
    mean = reduce(np.add, thumbnails)
    return _normalised(mean + np.flip(mean, mirror_axis(mean))).tolist()


def mirror_axis(typical: ArrayLike) -> int:
    """The axis from one lung to the other: -2 if they lie one above the other, -1 if side by side."""
    mean = np.array(typical)
    along, middle = slice(SIDE // 4, -SIDE // 4), slice(SIDE // 2 - 2, SIDE // 2 + 2)
    # Heart and spine lie along the line between the lungs, and are bright; the line through both lungs is dark.
    return -1 if mean[along, middle].mean() > mean[middle, along].mean() else -2


def turns_towards(typical: ArrayLike, small: np.ndarray) -> int:
    """Quarter turns, as ``rot90`` counts them, after which a slice, here its thumbnail, lies as the typical one."""
    mean = np.array(typical)
    alike = [np.vdot(mean, np.rot90(small, turns)) for turns in range(4)]
    turns = int(max(alike[1], alike[3]) > max(alike[0], alike[2]))  # so that both have the lungs side by side, or not
    same_way = np.vdot(_ends(mean), _ends(np.rot90(small, turns)))
    return turns + 2 if same_way < (0 if turns else UPSIDE_DOWN) else turns


def _ends(small: np.ndarray) -> np.ndarray:
    """What half a turn changes, as it tells spine from breastbone."""
    return _normalised(small - np.rot90(small, 2))


def _normalised(image: np.ndarray) -> np.ndarray:
    centred = image - image.mean()
    return centred / max(np.linalg.norm(centred), 1e-9)
