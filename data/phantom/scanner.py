"""A CT scanner for the phantom: sampling, blur, breathing, streaks and noise."""

from dataclasses import dataclass

import numpy as np

from data.phantom.anatomy import Chest
from data.phantom.canvas import gaussian_blur, smooth_noise
from data.phantom.lesions import VISIBLE


@dataclass(frozen=True)
class Scanner:
    noise: float  # standard deviation, HU
    grain: float  # of the noise, as blur in pixels
    blur: float  # of the reconstruction kernel, as a share of the image
    offset: float  # HU
    motion: float  # of a breath, as a share of the image
    streaks: float  # HU


def sample_scanner(rng: np.random.Generator, spread: float) -> Scanner:
    return Scanner(
        noise=22 * 2.2 ** (spread * rng.uniform(-1, 1)),
        grain=0.6 + 0.35 * spread * rng.uniform(-1, 1),
        blur=0.0015 * 2 ** (spread * rng.uniform(-1, 1)),
        offset=30 * spread * rng.uniform(-1, 1),
        motion=spread * max(0.0, rng.uniform(-0.03, 0.01)),
        streaks=spread * max(0.0, rng.uniform(-25, 20)),
    )


def scan(hu: np.ndarray, scanner: Scanner, size: int, rng: np.random.Generator) -> np.ndarray:
    """Scan the anatomy: breathing, blur, sampling to (size, size), streaks and noise."""
    if scanner.motion:  # two positions of the chest in one rotation
        hu = 0.6 * hu + 0.4 * np.roll(hu, round(scanner.motion * len(hu)), 0)
    hu = halve(gaussian_blur(hu, scanner.blur * len(hu)))
    streaks = smooth_noise(rng, size, 80)[:, :1] * (hu > -950)
    noise = gaussian_blur(rng.standard_normal((size, size), np.float32), scanner.grain)
    hu += scanner.offset + scanner.streaks * streaks + scanner.noise * noise / noise.std()
    return np.maximum(hu, -1024)


def halve(field: np.ndarray) -> np.ndarray:
    """(2S, 2S) to (S, S) by means of 2x2."""
    return field.reshape(len(field) // 2, 2, -1, 2).mean((1, 3))


def expose(
    chest: Chest, hu: np.ndarray, density: np.ndarray, scanner: Scanner, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A slice of the scan: Hounsfield units float32 (size, size) and its lesions bool (size, size).

    `hu` and `density` (2 size, 2 size) are the tissue with its lesions and how dense these are.
    """
    for opacity, tissue in ((chest.walls, -100), (chest.airways, -970), (chest.vessels, 30)):
        hu += opacity * (tissue - hu)
    mask = halve(density) > VISIBLE
    return scan(hu, scanner, size, rng), mask
