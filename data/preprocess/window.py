"""Hounsfield units <-> 8-bit gray levels."""

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
