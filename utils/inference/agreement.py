"""How far several predictions of one slice agree: a number that falls when the mask is likely wrong."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np
from torch import Tensor

FEW = 5e-4  # of the pixels: as much lesion is added everywhere, so that a few pixels of it are no disagreement


@dataclass(frozen=True)
class Agreement:
    """Lesion pixels that masks of several views, or networks, have in common with the mask of their mean.

    common, areas: ``(V,)``, of each view. own: of the mean. pixels: of the slice.
    """

    common: np.ndarray
    areas: np.ndarray
    own: float
    pixels: int

    @classmethod
    def of(cls, views: Tensor, mean: Tensor) -> "Agreement":
        """views: the lesion probabilities ``(V, H, W)``. mean: their mean ``(H, W)``.

        One view alone is compared as it is, not as a mask: the Dice that the mask has if the probabilities are right.
        """
        own = mean > 0.5
        each = (views > 0.5).float() if len(views) > 1 else views
        common, areas = (part.sum(dim=(1, 2)).double().cpu().numpy() for part in (each * own, each))
        return cls(common, areas, float(own.sum()), own.numel())

    @property
    def dice(self) -> float:
        """The mean Dice of the views' masks with that of their mean, in [0, 1]; 1 if there is no lesion in any."""
        few = FEW * self.pixels
        return float(np.mean((2 * self.common + few) / (self.areas + self.own + few)))

    @classmethod
    def of_all(cls, slices: Iterable["Agreement"]) -> "Agreement | None":
        """That of a scan, by that of its slices; None if there are none."""
        return reduce(_both, slices, None)


def _both(one: Agreement | None, other: Agreement) -> Agreement:
    if one is None:
        return other
    return Agreement(one.common + other.common, one.areas + other.areas, one.own + other.own, one.pixels + other.pixels)
