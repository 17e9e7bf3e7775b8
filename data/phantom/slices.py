"""Phantom slices: 8-bit gray levels and masks, the same for the same seed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from data.phantom.anatomy import draw_chest, sample_patient
from data.phantom.lesions import add_lesions
from data.phantom.scanner import expose, sample_scanner
from data.preprocess.window import LUNG

SPLITS = {"train": 0, "unlabeled": 1, "test": 2}  # the number enters the seed of every slice
SPREAD = {"train": 0.35, "unlabeled": 1.0, "test": 1.0}  # of appearances, see draw_slice


def draw_slice(rng: np.random.Generator, size: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """One slice: Hounsfield units float32 (size, size) and its lesions bool (size, size).

    `spread` in 0..1 is the share of the full range from which lung density, noise, sharpness, gray offset
    and breathing are drawn.
    """
    patient, scanner = sample_patient(rng, spread), sample_scanner(rng, spread)
    level = rng.uniform(0.05, 1)
    chest = draw_chest(patient, level, 2 * size, rng)  # twice as fine, for smooth edges
    hu = chest.hu.copy()
    density = add_lesions(chest, hu, level, rng)
    return expose(chest, hu, density, scanner, size, rng)


def slices(split: str, count: int, size: int, seed: int) -> Iterator[tuple[str, Image.Image, Image.Image]]:
    """Stem, image and mask of every slice of a split; asking for more leaves the first ones as they were."""
    for index in range(count):
        rng = np.random.default_rng([seed, SPLITS[split], index])
        hu, mask = draw_slice(rng, size, SPREAD[split])
        yield f"phantom_{index:04}", Image.fromarray(LUNG.to_gray(hu)), Image.fromarray(mask.astype(np.uint8) * 255)


def write(folders: dict[str, list[Path]], counts: dict[str, int], size: int, seed: int) -> np.ndarray:
    """Draws and saves all slices; returns the share of lesion pixels of each."""
    shares = []
    with tqdm(total=sum(counts.values()), unit="slice", disable=None) as progress:
        for split, targets in folders.items():
            for folder in targets:
                folder.mkdir(parents=True, exist_ok=True)
            for stem, image, mask in slices(split, counts[split], size, seed):
                for folder, picture in zip(targets, (image, mask), strict=False):  # Unlabeled takes no mask
                    picture.save(folder / f"{stem}.png")
                shares.append(np.mean(np.asarray(mask) > 0))
                progress.update()
    return np.array(shares)
