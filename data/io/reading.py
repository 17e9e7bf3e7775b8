"""How the files of slices are read: the settings that say what their values mean."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data.io.hounsfield import OFFSETS, why_no_ct
from data.preprocess.window import LUNG, Window

SAMPLE = 32  # files of a folder to look at
SATURATED, MOST_SATURATED = 1000, 0.05  # HU, and the share above that a chest in HU has at most


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What values in the files of slices and masks mean.

    window: brings Hounsfield units to gray levels. hu_offset: what was added to them in slices of 16 bits; None: slices
    are windowed already. mask_threshold: share of the gray levels of a mask above which a pixel is lesion; None: a mask
    has two values.
    """

    window: Window = LUNG
    hu_offset: float | None = None
    mask_threshold: float | None = None

    def for_slices(self, files: Sequence[Path]) -> "Reading":
        """The same, with the offset that the slices of a folder have if they are in Hounsfield units, and it is not
        given."""
        from data.io.images import read_levels

        if self.hu_offset is not None:
            return self
        chosen = [files[index] for index in np.unique(np.linspace(0, len(files) - 1, SAMPLE).round().astype(int))]
        levels = [values for path in chosen if (values := read_levels(path)) is not None]
        if len(levels) < len(chosen) / 2:
            return self
        values = np.concatenate([each.ravel()[:: max(1, each.size // 2**14)] for each in levels]).astype(np.float32)
        return replace(self, hu_offset=next((offset for offset in OFFSETS if _can_be_hu(values - offset)), None))


AS_STORED = Reading()


def _can_be_hu(values: np.ndarray) -> bool:
    """Whether values of slices can be Hounsfield units; windowed gray levels of 12 bits look like them, but bright."""
    return not why_no_ct(values) and float(np.mean(values > SATURATED)) < MOST_SATURATED
