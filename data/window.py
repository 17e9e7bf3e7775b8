"""Hounsfield units <-> 8-bit gray levels."""

import argparse
from typing import NamedTuple

import numpy as np


class Window(NamedTuple):
    """Gray levels 0 to 255 for ``level - width / 2`` to ``level + width / 2`` HU."""

    level: float = -650
    width: float = 1500

    def to_gray(self, hu: np.ndarray) -> np.ndarray:
        """HU, any shape, to uint8."""
        return np.round(255 * np.clip((hu - self.level) / self.width + 0.5, 0, 1)).astype(np.uint8)

    def to_hu(self, share: np.ndarray) -> np.ndarray:
        """The share of the window, in [0, 1], back to HU, float32."""
        return ((share - 0.5) * self.width + self.level).astype(np.float32)


LUNG = Window()


def window(text: str) -> Window:
    """An argparse type: ``lung`` or ``LEVEL,WIDTH`` in HU."""
    if text == "lung":
        return LUNG
    try:
        level, width = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither `lung` nor LEVEL,WIDTH, such as -650,1500") from None
    if not (np.isfinite([level, width]).all() and width > 0):
        raise argparse.ArgumentTypeError(f"{text!r}: the width must be above 0")
    return Window(level, width)
