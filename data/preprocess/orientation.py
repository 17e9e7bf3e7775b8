"""Rotate slices from different sources to the orientation of the training set.

Most training slices have one orientation, the spine on one side. A network does not recognise lungs and heart in
another one, and learns worse if it sees every slice in all eight flips and rotations. So each slice is rotated by
quarter turns to match the typical training slice best; its mirror image, left lung for right, matches equally well.

Two tables decide: the typical slice says on which axis the lungs lie, and a linear classifier, ``front_to_back``, on
which side the spine is. It sees the order of gray levels and the lungs, which no window and no equalization changes.
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from data.preprocess.lungs import find_in_slice, touches_borders

SIDE = 16  # pixels a side: enough for lungs, heart and spine
DOUBT = -0.2  # of the classifier; it gives slices of one orientation 0.2 to 1
RIDGE = 0.1  # of the classifier; the best of .003 to .1 on unlabeled slices and whole fields of view
UPSIDE_DOWN = -0.25  # a slice is upside down below this correlation of front-to-back differences; few errors


def thumbnail(image: np.ndarray) -> np.ndarray:
    """A uint8 slice ``(H, W)`` at 16 x 16 pixels, float64, of mean 0 and norm 1; orientation needs no more."""
    return _normalised(np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.LANCZOS), dtype=float))


class Portrait(NamedTuple):
    """A slice at 16 x 16 pixels, float64, each part of mean 0 and norm 1; and whether it is cropped to the lungs."""

    gray: np.ndarray
    ranks: np.ndarray  # of the gray levels
    lungs: np.ndarray
    cropped: bool

    @property
    def parts(self) -> np.ndarray:
        """What the classifier sees: ranks and lungs, ``(2, 16, 16)``."""
        return np.stack([self.ranks, self.lungs])


def portrait(image: np.ndarray) -> Portrait:
    """The portrait of a slice uint8 ``(H, W)``."""
    gray, lungs = thumbnail(image), find_in_slice(image)[1]
    ranks = gray.ravel().argsort(kind="stable").argsort().reshape(gray.shape).astype(float)
    return Portrait(gray, _normalised(ranks), thumbnail(lungs * np.uint8(255)), touches_borders(lungs))


def typical_slice(thumbnails: Iterable[np.ndarray]) -> list[list[float]]:
    """The mean of slices, by their thumbnails, and of their mirror images: 16 x 16, of mean 0 and norm 1."""
    mean = reduce(np.add, thumbnails)
    return _normalised(mean + np.flip(mean, mirror_axis(mean))).tolist()


def front_to_back(portraits: Sequence[Portrait], axis: int) -> list[list[list[float]]]:
    """The weights ``(2, 16, 16)`` of a classifier: positive for these slices and their mirror images along ``axis``,
    negative for the same turned by 180 degrees; by ridge regression."""
    seen = [_ends(parts).ravel() for p in portraits for parts in (p.parts, np.flip(p.parts, axis))]
    x = np.stack(seen)
    penalty = RIDGE * len(x) * np.eye(x.shape[1])
    return np.linalg.solve(x.T @ x + penalty, x.sum(axis=0)).reshape(2, SIDE, SIDE).tolist()


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


def turns_towards(
    typical: ArrayLike, slice_: Portrait, weights: ArrayLike | None = None, *, framed: bool = False
) -> int:
    """The quarter turns of ``rot90`` that bring a slice to the orientation of the typical one.

    weights: of ``front_to_back``; without them, as in earlier checkpoints, only the typical slice decides. framed: the
    slice was cropped to be like the training slices; if not, it probably has their orientation, and stays in doubt.
    """
    mean = np.array(typical)
    match = [np.vdot(mean, np.rot90(slice_.gray, turns)) for turns in range(4)]
    turns = int(max(match[1], match[3]) > max(match[0], match[2]))  # aligns the axis through both lungs
    if weights is not None:
        score = np.vdot(weights, _ends(np.rot90(slice_.parts, turns, (-2, -1))))
        upside_down = score < (0 if turns or framed else DOUBT)
    else:
        same_way = np.vdot(_ends(mean), _ends(np.rot90(slice_.gray, turns)))
        upside_down = same_way < (0 if turns else UPSIDE_DOWN)
    return turns + 2 if upside_down else turns


def _ends(parts: np.ndarray) -> np.ndarray:
    """What changes under a rotation by 180 degrees, of each part ``(..., 16, 16)``: it tells spine from breastbone."""
    turned = parts - np.rot90(parts, 2, (-2, -1))
    return turned / np.maximum(np.linalg.norm(turned, axis=(-2, -1), keepdims=True), 1e-9)


def _normalised(image: np.ndarray) -> np.ndarray:
    centred = image - image.mean()
    return centred / max(np.linalg.norm(centred), 1e-9)
