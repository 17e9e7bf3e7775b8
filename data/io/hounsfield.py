"""Whether the values of a volume are Hounsfield units of a chest, and what they are if not."""

import numpy as np

from data.errors import one_note
from data.preprocess.window import LUNG

LOWEST_TISSUE, HIGHEST_TISSUE = -200, 250  # HU of fat, muscle, blood, organs
DENSE = -500  # HU; what is denser is mostly tissue
LEAST_TISSUE = 0.5  # of the dense voxels
LEAST_AIR = 0.02  # of all voxels
AIR = -1024  # HU; no scanner measures less, so that lower values are padding
OFFSETS = (0, 1024, 2**15)  # that are added to HU where values can't be negative
SLACK = 1e-3  # beyond [0, 1], by interpolation
ENOUGH = 2**20  # voxels to judge a volume by
GAP = 100  # between padding and the lowest value that was measured
HIGHEST, FAR = (2**15 - 1, 2**16 - 1), 2**12  # values that pad, and their distance to those that do not
SMALLEST_SIDE = 16  # pixels of a slice with corners
DARK = 0.1  # of the range of values: air is within it
NEARLY_ALL, LEAST_AROUND = 0.95, 0.05  # of the corners that have the value; of the voxels around a field of view
NEGATIVE = -100  # HU + 1024 does not have such values, but for a few that are interpolated
SIGN = 2**15  # 16-bit values from here on are negative ones, read without their sign


def why_no_ct(hu: np.ndarray) -> str:
    """Why a volume in what should be HU is no CT of a chest; empty if it can be one.

    In Hounsfield units, tissue lies between fat and blood, and lungs are full of air; in MR and PET, neither holds.
    """
    if (share := np.mean(hu < DENSE)) < LEAST_AIR:
        return f"{share:.1%} of the voxels are air"
    dense = hu[hu > DENSE]
    share = np.mean((dense > LOWEST_TISSUE) & (dense < HIGHEST_TISSUE)) if dense.size else np.float64(0)
    return f"only {share:.0%} of the denser voxels have the values of soft tissue" if share < LEAST_TISSUE else ""


def sample(values: np.ndarray) -> np.ndarray:
    """Enough values of a volume to judge it by, ``(N,)``."""
    return values.ravel()[:: max(1, values.size // ENOUGH)]


def to_hounsfield(
    values: np.ndarray, padding: np.ndarray | None = None, *, offset: float | None = None
) -> tuple[np.ndarray, str]:
    """Values as Hounsfield units, float32, at least -1024, and a note on what was assumed.

    Gray levels in [0, 1] or of 8 bits come from a lung window, which starts at -1400. What is darker than air by a gap
    is padding, as what is known to be, bool ``padding``; it becomes air. Of the offsets in OFFSETS, the first is
    removed that leaves a CT of a chest; ``offset``: this one.
    """
    values, unwrapped = _with_sign(values.astype(np.float32))
    padding, filled = _in_corners(values, _beyond_all(values, padding))
    padding = _darker_than_air(values, padding)
    measured = values if padding is None or padding.all() else values[~padding]
    low, high = measured.min(), measured.max()
    assumed = ""
    if offset is not None:
        values = values - np.float32(offset)
    elif low >= -SLACK and high <= 255:
        limit = 1 if high <= 1 + SLACK else 255
        assumed = f"values in [0, {limit}], interpreted as a lung window (-650, 1500)"
        return LUNG.to_hu((values / limit).clip(0, 1)), assumed
    elif offset := _offset_of(measured):
        values = values - np.float32(offset)
        assumed = f"values from {low:g} to {high:g}, interpreted as HU + {offset}"
    if padding is not None:
        values[padding] = AIR
    return np.maximum(values, AIR, out=values), one_note(unwrapped, filled, assumed)


def _with_sign(values: np.ndarray) -> tuple[np.ndarray, str]:
    """Values of which some are 65536 too large, as negative ones are if read without their sign; and a note."""
    high = values >= SIGN
    # Without a gap below, these are HU + 32768.
    if not high.any() or high.all() or values[high].min() - values[~high].max() < SIGN / 4:
        return values, ""
    return np.where(high, values - 2 * SIGN, values), f"values of {SIGN} and more interpreted as negative ones"


def _beyond_all(values: np.ndarray, padding: np.ndarray | None) -> np.ndarray | None:
    """The padding, bool, with all voxels of the highest value of 16 bits, if the next one is far below it."""
    high = values.max()
    if high not in HIGHEST or high - values.max(initial=-np.inf, where=values < high) < FAR:
        return padding
    return _joined(padding, values == high)


def _in_corners(values: np.ndarray, padding: np.ndarray | None) -> tuple[np.ndarray | None, str]:
    """The padding, bool, with what surrounds a round field of view: one value, not that of air, in the corners of
    nearly all slices ``(S, H, W)``; and a note."""
    if values.ndim != 3 or min(values.shape[1:]) < SMALLEST_SIDE:
        return padding, ""
    corners = values[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    value = float(np.median(corners))
    air = values.min() + (values.max() - values.min()) * DARK
    if value <= air or (corners == value).mean() < NEARLY_ALL:
        return padding, ""
    from data.preprocess.lungs import air_in_corners  # it imports SciPy

    around = np.stack([air_in_corners(section == value) for section in values])
    if around.mean() < LEAST_AROUND:
        return padding, ""
    return _joined(padding, around), f"{value:g} around the slices interpreted as padding"


def _darker_than_air(values: np.ndarray, padding: np.ndarray | None) -> np.ndarray | None:
    """The padding, bool, with all voxels of the lowest value while it is at most that of air and far below the others;
    None if there is none."""
    while True:
        rest = values if padding is None else values[~padding]
        if rest.size == 0 or (low := rest.min()) > AIR:
            return padding
        if not GAP <= rest.min(initial=np.inf, where=rest > low) - low < np.inf:
            return padding
        padding = _joined(padding, values <= low)


def _joined(padding: np.ndarray | None, more: np.ndarray) -> np.ndarray:
    return more if padding is None else padding | more


def _offset_of(values: np.ndarray) -> int:
    """What was added to Hounsfield units: the first of OFFSETS without which they can be those of a chest."""
    few = sample(values)
    if np.quantile(few, 0.001) < NEGATIVE:
        return 0
    likely = (offset for offset in OFFSETS if not why_no_ct(few - np.float32(offset)))
    return next(likely, 1024 if values.min() >= 0 else 0)
