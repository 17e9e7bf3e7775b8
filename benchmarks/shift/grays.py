"""Changes of the gray levels of a slice: other windows, contrast equalization, noise, kernels."""

from collections.abc import Callable

import numpy as np
from scipy import ndimage
from skimage.exposure import equalize_adapthist

Shift = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def clahe(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Contrast-limited adaptive histogram equalization, as public slices of scans have it."""
    return equalize_adapthist(gray, kernel_size=len(gray) // 8, clip_limit=rng.uniform(0.005, 0.03)) * 255


def window(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A narrower or wider window: gray levels 0 and 255 move by up to a fifth of the range."""
    low, high = rng.uniform(-50, 50), 255 + rng.uniform(-50, 50)
    return (gray - low) / (high - low) * 255


def noise(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Grain of a low dose."""
    grain = ndimage.gaussian_filter(rng.normal(size=gray.shape), 0.7)
    return gray + grain / grain.std() * rng.uniform(8, 20)


def blur(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A soft kernel, or thick slices."""
    return ndimage.gaussian_filter(gray.astype(float), rng.uniform(0.002, 0.005) * len(gray))


def sharp(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A sharp kernel, with bright and dark rims at edges."""
    smooth = ndimage.gaussian_filter(gray.astype(float), 0.004 * len(gray))
    return gray + rng.uniform(0.7, 1.5) * (gray - smooth)


SHIFTS: dict[str, Shift] = {"clahe": clahe, "window": window, "noise": noise, "blur": blur, "sharp": sharp}


def shifted(name: str, gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A slice uint8 ``(H, W)`` with one of SHIFTS, in the same form."""
    return np.round(SHIFTS[name](gray, rng).clip(0, 255)).astype(np.uint8)
