"""Lesions of the phantom: ground-glass, consolidation, both mixed, and crazy paving."""

import numpy as np

from data.phantom.anatomy import Chest
from data.phantom.canvas import smooth_noise

VISIBLE = 0.35  # density from which a reader would outline a lesion
KINDS = {"ground-glass": 0.5, "consolidation": 0.15, "mixed": 0.2, "crazy-paving": 0.15}  # and how often


def lesion_centre(chest: Chest, rng: np.random.Generator) -> tuple[float, float]:
    """A point of the lungs in chest coordinates, more likely far out and at the back."""
    step = len(chest.hu) // 64
    lungs, x, y = (layer[::step, ::step].ravel() for layer in (chest.lungs, chest.x, chest.y))
    weight = lungs * np.exp(3.5 * np.hypot(x, y) + 1.2 * y)
    i = rng.choice(len(weight), p=weight / weight.sum())
    return x[i], y[i]


def lesion_density(
    chest: Chest, centre: tuple[float, float], radii: np.ndarray, ragged: float, soft: float, rng: np.random.Generator
) -> np.ndarray:
    """(S, S) in 0..1: an oval flat along the pleura, its border broken up by noise, clipped to the lungs."""
    turn = np.arctan2(centre[1], centre[0])
    x, y = chest.x - centre[0], chest.y - centre[1]
    across, along = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    octaves = ((0.7, 14), (0.4, 32), (0.2, 72))
    noise = sum(share * smooth_noise(rng, len(x), cells) for share, cells in octaves)
    field = 1 - np.hypot(along / radii[0], across / radii[1]) + ragged * noise
    return np.clip(field / soft + 0.5, 0, 1) * chest.lungs


def add_lesion(chest: Chest, hu: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Blends one lesion into `hu` in place and returns its density (S, S), 0..1."""
    kind = rng.choice(list(KINDS), p=list(KINDS.values()))
    centre = lesion_centre(chest, rng)
    length = scale * rng.uniform(0.12, 0.38)
    radii = np.array([length, length * rng.uniform(0.5, 0.9)])
    density = np.zeros_like(hu)
    if kind != "consolidation":
        density = lesion_density(chest, centre, radii, rng.uniform(0.25, 0.5), rng.uniform(0.5, 0.9), rng)
        haze = density * (0.85 + 0.15 * smooth_noise(rng, len(hu), 60))
        hu += haze * np.maximum(rng.uniform(-680, -450) - hu, 60)  # visible in dense lung, too
    if kind == "crazy-paving":  # thickened septa between the lobules: the zero lines of a noise
        mesh = np.exp(-((smooth_noise(rng, len(hu), 64) / 0.3) ** 2))
        hu += 0.55 * density * mesh * np.maximum(-250 - hu, 0)
    if kind in ("consolidation", "mixed"):
        core = lesion_density(chest, centre, 0.6 * radii, rng.uniform(0.3, 0.5), rng.uniform(0.2, 0.4), rng)
        hu += core * (rng.uniform(-100, 30) - hu)
        density = np.maximum(density, core)
    return density


def add_lesions(chest: Chest, hu: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Blends 0 to 6 lesions into `hu` in place and returns their joint density (S, S), 0..1."""
    density = np.zeros_like(hu)
    if rng.random() < 0.16:
        return density
    severity = rng.random()
    many = 0.2 + 0.5 * severity * min(1, 0.5 + level)  # more towards the bases
    for _ in range(1 + rng.binomial(5, many)):
        density = np.maximum(density, add_lesion(chest, hu, 0.6 + severity**1.5, rng))
    return density
